//! Chunked transfer coding of upstream answers (RFC 9112 section 7.1), read strictly.
//!
//! Bare line feeds, signs, blanks and sizes beyond 64 bits are malformed: where two parsers could disagree, the
//! answer is not passed on. Extensions and trailers are read within limits and dropped.

use bytes::{Buf as _, Bytes, BytesMut};

/// Longest chunk-size line with its extensions.
const LINE_BYTES_MAX: usize = 4096;
/// Longest trailer section.
const TRAILER_BYTES_MAX: usize = 16 * 1024;

/// The coding is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed chunked coding")]
pub struct MalformedChunk;

/// Where in the coding the next byte stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum State {
    #[default]
    Size,
    Data(u64),
    DataEnd,
    Trailer {
        read: usize,
    },
    Done,
}

/// Reads a chunked body piece by piece.
#[derive(Debug, Default)]
pub struct Decoder(State);

/// What the input yields.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece {
    /// Some of the body.
    Data(Bytes),
    /// Nothing before there is more input.
    NeedsInput,
    /// The body is complete; what is left of the input does not belong to it.
    End,
}

impl Decoder {
    /// Takes what can be taken from `input`.
    ///
    /// # Errors
    /// If the coding is broken; the connection is of no use then.
    pub fn next(&mut self, input: &mut BytesMut) -> Result<Piece, MalformedChunk> {
        loop {
            match self.0 {
                State::Done => return Ok(Piece::End),
                State::Size => {
                    let Some(line) = take_line(input, LINE_BYTES_MAX)? else { return Ok(Piece::NeedsInput) };
                    self.0 = match size(&line)? {
                        0 => State::Trailer { read: 0 },
                        size => State::Data(size),
                    };
                }
                State::Data(_) if input.is_empty() => return Ok(Piece::NeedsInput),
                State::Data(left) => {
                    let take = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
                    let rest = left.saturating_sub(u64::try_from(take).unwrap_or(left));
                    self.0 = if rest == 0 { State::DataEnd } else { State::Data(rest) };
                    return Ok(Piece::Data(input.split_to(take).freeze()));
                }
                State::DataEnd => match input.get(..2) {
                    Some(b"\r\n") => {
                        input.advance(2);
                        self.0 = State::Size;
                    }
                    Some(_) => return Err(MalformedChunk),
                    None if input.first().is_some_and(|byte| *byte != b'\r') => return Err(MalformedChunk),
                    None => return Ok(Piece::NeedsInput),
                },
                State::Trailer { read } => {
                    let room = TRAILER_BYTES_MAX.saturating_sub(read);
                    let Some(line) = take_line(input, room)? else { return Ok(Piece::NeedsInput) };
                    self.0 = match line.len() {
                        0 => State::Done,
                        length if is_field(&line) => {
                            State::Trailer { read: read.saturating_add(length).saturating_add(2) }
                        }
                        _ => return Err(MalformedChunk),
                    };
                }
            }
        }
    }
}

/// Takes one line without its CRLF; `None` if it is not complete.
fn take_line(input: &mut BytesMut, bytes_max: usize) -> Result<Option<Bytes>, MalformedChunk> {
    let Some(end) = input.iter().take(bytes_max.saturating_add(2)).position(|byte| *byte == b'\n') else {
        return if input.len() > bytes_max.saturating_add(1) { Err(MalformedChunk) } else { Ok(None) };
    };
    let line = input.split_to(end.saturating_add(1)).freeze();
    let content = line.strip_suffix(b"\r\n").ok_or(MalformedChunk)?;
    // RFC 9112 section 2.2: a bare CR is no line end and no content.
    if content.contains(&b'\r') {
        return Err(MalformedChunk);
    }
    Ok(Some(line.slice_ref(content)))
}

/// Whether a trailer line begins with the name of a field (RFC 9112 section 5).
fn is_field(line: &[u8]) -> bool {
    let mut parts = line.splitn(2, |byte| *byte == b':');
    let name = parts.next().unwrap_or_default();
    parts.next().is_some() && http::HeaderName::from_bytes(name).is_ok()
}

/// `chunk-size [ chunk-ext ]`: 1 to 16 hex digits, then nothing or `;`.
fn size(line: &[u8]) -> Result<u64, MalformedChunk> {
    let digits = line.split(|byte| *byte == b';').next().unwrap_or_default();
    // RFC 9112 section 7.1.1 lets bad white space stand before an extension.
    let digits = if digits.len() < line.len() { digits.trim_ascii_end() } else { digits };
    let is_valid = (1..=16).contains(&digits.len()) && digits.iter().all(u8::is_ascii_hexdigit);
    let text = std::str::from_utf8(digits).ok().filter(|_| is_valid).ok_or(MalformedChunk)?;
    u64::from_str_radix(text, 16).map_err(|_| MalformedChunk)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Feeds the input in pieces of this size; the body and what is left over.
    fn decode(input: &[u8], step: usize) -> Result<(Vec<u8>, Vec<u8>, bool), MalformedChunk> {
        let mut decoder = Decoder::default();
        let mut buffer = BytesMut::new();
        let mut body = Vec::new();
        let mut rest = input;
        loop {
            match decoder.next(&mut buffer)? {
                Piece::Data(data) => body.extend_from_slice(&data),
                Piece::End => return Ok((body, [&buffer[..], rest].concat(), true)),
                Piece::NeedsInput if rest.is_empty() => return Ok((body, buffer.to_vec(), false)),
                Piece::NeedsInput => {
                    let (now, later) = rest.split_at(step.min(rest.len()));
                    buffer.extend_from_slice(now);
                    rest = later;
                }
            }
        }
    }

    #[test]
    fn bodies_are_read_whatever_the_pieces() {
        let input = b"5\r\nhello\r\n1;ext=\"a\"\r\n \r\nA \t;x\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\nNEXT";
        for step in 1..input.len() {
            let (body, rest, ended) = decode(input, step).unwrap();
            assert_eq!((&body[..], &rest[..], ended), (&b"hello 0123456789"[..], &b"NEXT"[..], true));
        }
    }

    #[test]
    fn malformed_codings_are_refused() {
        for input in [
            &b"0x5\r\nhello\r\n0\r\n\r\n"[..],
            b"+5\r\nhello\r\n0\r\n\r\n",
            b"-5\r\n",
            b"g\r\n",
            b"\r\n",
            b" 5\r\n",
            b"5 \r\nhello\r\n",
            b"10000000000000005\r\nhello",
            b"5\nhello\r\n0\r\n\r\n",
            b"5\r\nhelloXX",
            b"5\r\nhello\n0\r\n\r\n",
            b"5\rx\r\nhello",
            b"0\r\n\n",
            b"0\r\nno colon\r\n\r\n",
            b"0\r\nbad name: x\r\n\r\n",
            b"0\r\n folded: x\r\n\r\n",
        ] {
            assert_eq!(decode(input, 1), Err(MalformedChunk), "{:?}", String::from_utf8_lossy(input));
        }
    }

    #[test]
    fn truncated_bodies_do_not_end() {
        for input in [&b"5\r\nhel"[..], b"5\r\nhello", b"5\r\nhello\r\n", b"0\r\n", b"0\r\n\r", b"5"] {
            assert!(!decode(input, 3).unwrap().2);
        }
    }

    #[test]
    fn lines_and_trailers_are_bounded() {
        let long = [b"5;".as_slice(), &[b'x'; 5000]].concat();
        assert_eq!(decode(&long, 100), Err(MalformedChunk));
        let trailers = [b"0\r\n".as_slice(), &b"a: b\r\n".repeat(4000)].concat();
        assert_eq!(decode(&trailers, 1000), Err(MalformedChunk));
    }

    proptest! {
        #[test]
        fn any_input_is_read_without_panic(input: Vec<u8>, step in 1_usize..20) {
            drop(decode(&input, step));
        }

        #[test]
        fn what_was_encoded_is_decoded(chunks: Vec<Vec<u8>>, step in 1_usize..50) {
            let mut input = Vec::new();
            for chunk in chunks.iter().filter(|c| !c.is_empty()) {
                input.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                input.extend_from_slice(chunk);
                input.extend_from_slice(b"\r\n");
            }
            input.extend_from_slice(b"0\r\n\r\n");
            prop_assert_eq!(decode(&input, step), Ok((chunks.concat(), Vec::new(), true)));
        }
    }
}
