//! Forms in parts (`multipart/form-data`, RFC 7578) as Django 5.2 reads them (`django.http.multipartparser`), with what
//! it makes of broken ones: a client that works against Django works here, and one that does not gets the same answer.

use crate::body::charset::Charset;
use crate::body::parameters::Parameters;
use crate::body::urlencoded::FIELDS_MAX;
use crate::body::{Extent, Fields, Given};
use crate::header::{base64, blanks};
use std::ops::Range;
use zeroize::Zeroizing;

/// Django's `DATA_UPLOAD_MAX_NUMBER_FILES`.
const FILES_MAX: usize = 100;

/// Largest header of a part, in bytes (Django's `MAX_TOTAL_HEADER_SIZE`).
const PART_HEADER_MAX: usize = 1024;

/// Django reads the body in pieces of this size (`FileUploadHandler.chunk_size`).
const CHUNK: usize = 64 << 10;

/// Longest boundary, in bytes (Django's `boundary_re`).
const BOUNDARY_MAX: usize = 201;

/// What Python trims off bytes.
const BLANKS: [char; 6] = [' ', '\t', '\n', '\r', '\x0b', '\x0c'];

/// Why a form in parts cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum MultipartError {
    /// Django's `MultiPartParserError`, with its text.
    Malformed(String),
    /// More fields than [`FIELDS_MAX`] or more files than [`FILES_MAX`].
    TooMany,
}

/// The fields of a form. `content_type` is the whole value, `parameters` what it says.
///
/// # Errors
/// As Django's `MultiPartParser`.
pub(crate) fn fields(
    content_type: &str,
    parameters: &Parameters,
    body: &[u8],
    extent: Extent,
    charset: Charset,
    names: &[&'static str],
) -> Result<Fields, MultipartError> {
    let malformed = |text: String| Err(MultipartError::Malformed(text));
    if !content_type.starts_with("multipart/") {
        return malformed(format!("Invalid Content-Type: {content_type}"));
    }
    if !content_type.is_ascii() {
        return malformed(format!("Invalid non-ASCII Content-Type in multipart: {content_type}"));
    }
    let boundary = parameters.get("boundary");
    let Some(boundary) = boundary.filter(|boundary| is_boundary(boundary)) else {
        return malformed(format!("Invalid boundary in multipart: {}", boundary.unwrap_or("None")));
    };
    let separator = format!("--{boundary}");
    let body = if extent == Extent::Whole { body } else { complete(body, separator.as_bytes()) };
    let mut reading = Reading { fields: Fields::of(names), charset, parts: 0, files: 0, pending: None };
    let mut stream = Stream { body, at: 0, chunk_end: 0 };
    while let Some(part) = Part::next(&mut stream, separator.as_bytes()) {
        reading.part(part)?;
    }
    // A file whose end was not seen, since nothing comes after it, is none.
    Ok(reading.fields)
}

/// What is whole of a form that goes on: up to its last boundary.
fn complete<'a>(prefix: &'a [u8], separator: &[u8]) -> &'a [u8] {
    let last = prefix.windows(separator.len()).rposition(|window| window == separator);
    last.and_then(|at| prefix.get(..at.saturating_add(separator.len()))).unwrap_or_default()
}

fn is_boundary(text: &str) -> bool {
    let is_printable = text.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    is_printable && text.len() <= BOUNDARY_MAX && text.bytes().next_back().is_some_and(|last| last != b' ')
}

/// What was read of a form so far.
struct Reading {
    fields: Fields,
    charset: Charset,
    parts: usize,
    files: usize,
    /// A file that counts once something comes after it.
    pending: Option<Zeroizing<String>>,
}

impl Reading {
    fn part(&mut self, mut part: Part<'_, '_>) -> Result<(), MultipartError> {
        let header = part.header()?;
        if let Some(name) = self.pending.take() {
            self.fields.set_file(&name);
        }
        let is_file = header.is_file;
        if !is_file {
            self.parts = self.parts.saturating_add(1);
            // What is before the first boundary and after the last counts too.
            if self.parts > FIELDS_MAX.saturating_add(2) {
                return Err(MultipartError::TooMany);
            }
        }
        let Some(disposition) = header.get("content-disposition") else { return Ok(()) };
        let Some(name) = disposition.parameters.get("name") else { return Ok(()) };
        let name = self.charset.decode_lossy(name.trim_matches(BLANKS).as_bytes());
        let encoding = header.get("content-transfer-encoding");
        let is_base64 = encoding.is_some_and(|encoding| blanks::strip(&encoding.value) == "base64");
        if !is_file {
            let content = part.rest();
            let decoded = if is_base64 { base64::decode(&content) } else { None };
            let content = self.charset.decode_lossy(decoded.as_ref().unwrap_or(&content));
            self.fields.set(&name, || Given::text(content));
            return Ok(());
        }
        self.files = self.files.saturating_add(1);
        if self.files > FILES_MAX {
            return Err(MultipartError::TooMany);
        }
        let filename = disposition.parameters.get("filename").unwrap_or_default();
        if !is_filename(&self.charset.decode_lossy(filename.as_bytes())) {
            // Its content stays unread, as in Django.
            return Ok(());
        }
        let mut content = part.rest();
        if is_base64 {
            content.retain(|byte| !byte.is_ascii_whitespace() && *byte != 0x0b);
            if !content.len().is_multiple_of(4) || base64::decode(&content).is_none() {
                return Err(MultipartError::Malformed("Could not decode base64 data.".to_owned()));
            }
        }
        self.pending = Some(name);
        Ok(())
    }
}

/// Whether anything is left of a file's name without its path (`sanitize_file_name`).
fn is_filename(name: &str) -> bool {
    let name = name.rsplit(['/', '\\']).next().unwrap_or_default();
    let mut shown = name.chars().filter(|character| !character.is_control()).take(3);
    !matches!(
        (shown.next(), shown.next(), shown.next()),
        (None, ..) | (Some('.'), None, _) | (Some('.'), Some('.'), None)
    )
}

/// The body, read in chunks; what was not wanted can be put back.
struct Stream<'a> {
    body: &'a [u8],
    at: usize,
    chunk_end: usize,
}

impl Stream<'_> {
    /// Over the rest of this chunk, or the next; false at the end.
    fn advance(&mut self) -> bool {
        if self.at >= self.chunk_end {
            self.chunk_end = self.at.saturating_add(CHUNK).min(self.body.len());
        }
        let is_left = self.at < self.chunk_end;
        self.at = self.chunk_end;
        is_left
    }
}

/// What is between two boundaries, or all that is left if there is none any more (`BoundaryIter`).
///
/// A boundary is one wherever it stands. What a part's reader leaves unread may come again as a part of its own.
struct Part<'a, 's> {
    stream: &'s mut Stream<'a>,
    separator: &'s [u8],
    is_done: bool,
    /// Read, and put back.
    back: Range<usize>,
}

impl<'a, 's> Part<'a, 's> {
    fn next(stream: &'s mut Stream<'a>, separator: &'s [u8]) -> Option<Self> {
        let is_left = stream.at < stream.body.len();
        is_left.then_some(Self { stream, separator, is_done: false, back: 0..0 })
    }

    /// The next piece of the part; each begins where the one before ended.
    fn piece(&mut self) -> Option<Range<usize>> {
        if !self.back.is_empty() {
            return Some(std::mem::take(&mut self.back));
        }
        if self.is_done {
            return None;
        }
        // CRLF, the boundary, two dashes and CRLF.
        let rollback = self.separator.len().saturating_add(6);
        let start = self.stream.at;
        while self.stream.at.saturating_sub(start) <= rollback {
            if !self.stream.advance() {
                self.is_done = true;
                break;
            }
        }
        let end = self.stream.at;
        let piece = self.stream.body.get(start..end).filter(|piece| !piece.is_empty())?;
        if let Some(length) = find(piece, self.separator) {
            self.is_done = true;
            self.stream.at = start.saturating_add(length).saturating_add(self.separator.len());
            let content = piece.get(..length).unwrap_or_default();
            let content = content.strip_suffix(b"\n").unwrap_or(content);
            let content = content.strip_suffix(b"\r").unwrap_or(content);
            return Some(start..start.saturating_add(content.len()));
        }
        if piece.len() <= rollback {
            self.is_done = true;
            return Some(start..end);
        }
        // The boundary may go on in the next chunk.
        self.stream.at = end.saturating_sub(rollback);
        Some(start..self.stream.at)
    }

    fn bytes(&self, range: Range<usize>) -> &'a [u8] {
        self.stream.body.get(range).unwrap_or_default()
    }

    /// `parse_boundary_stream`: a part without a blank line in it has no header.
    fn header(&mut self) -> Result<Header, MultipartError> {
        let mut whole: Option<Range<usize>> = None;
        while whole.as_ref().is_none_or(|whole| whole.len() < PART_HEADER_MAX) {
            let Some(piece) = self.piece() else { break };
            whole = Some(whole.map_or(piece.start, |whole| whole.start)..piece.end);
        }
        self.back = whole.unwrap_or(0..0);
        let whole = self.bytes(self.back.clone());
        let chunk = whole.get(..PART_HEADER_MAX).unwrap_or(whole);
        let Some(end) = find(chunk, b"\r\n\r\n") else {
            if chunk.len() < PART_HEADER_MAX {
                return Ok(Header::default());
            }
            let text = "Request max total header size exceeded.";
            return Err(MultipartError::Malformed(text.to_owned()));
        };
        self.back.start = self.back.start.saturating_add(end).saturating_add(4);
        Ok(Header::parse(chunk.get(..end).unwrap_or_default()))
    }

    /// All that is left of the part.
    fn rest(&mut self) -> Zeroizing<Vec<u8>> {
        let mut rest = Zeroizing::new(Vec::with_capacity(self.back.len()));
        while let Some(piece) = self.piece() {
            rest.extend_from_slice(self.bytes(piece));
        }
        rest
    }
}

fn find(text: &[u8], sought: &[u8]) -> Option<usize> {
    text.windows(sought.len()).position(|window| window == sought)
}

/// The header of a part.
#[derive(Debug, Default)]
struct Header {
    is_file: bool,
    lines: Vec<(String, Line)>,
}

#[derive(Debug)]
struct Line {
    value: String,
    parameters: Parameters,
}

impl Header {
    /// Lines that are no header field are passed over.
    fn parse(bytes: &[u8]) -> Self {
        let mut header = Self::default();
        let mut rest = Some(bytes);
        while let Some(left) = rest {
            let end = find(left, b"\r\n");
            let line = end.and_then(|end| left.get(..end)).unwrap_or(left);
            rest = end.and_then(|end| left.get(end.saturating_add(2)..));
            let Ok(line) = std::str::from_utf8(line) else { continue };
            let Ok(parameters) = Parameters::parse(line) else { continue };
            let Some((name, value)) = parameters.value.split_once(':') else { continue };
            if name == "content-disposition" {
                header.is_file = parameters.get("filename").is_some_and(|name| !name.is_empty());
            }
            let (name, value) = (name.to_owned(), value.to_owned());
            header.lines.push((name, Line { value, parameters }));
        }
        header
    }

    /// The last line of this name.
    fn get(&self, name: &str) -> Option<&Line> {
        self.lines.iter().rev().find(|(known, _)| known == name).map(|(_, line)| line)
    }
}
