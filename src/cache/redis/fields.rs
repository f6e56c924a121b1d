//! The encoding of values and messages: fields one behind the other, numbers big-endian, texts behind their length.
//!
//! One text has one encoding: whatever else is found is refused. Nothing here panics or allocates more than it was given.

/// Appends fields.
#[derive(Debug, Default)]
pub(super) struct Writer(Vec<u8>);

impl Writer {
    /// Nothing yet.
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// One byte.
    pub(super) fn byte(&mut self, value: u8) {
        self.0.push(value);
    }

    /// Eight bytes.
    pub(super) fn unsigned(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_be_bytes());
    }

    /// Eight bytes.
    pub(super) fn signed(&mut self, value: i64) {
        self.0.extend_from_slice(&value.to_be_bytes());
    }

    /// A byte that tells whether there is one, and the number.
    pub(super) fn maybe_unsigned(&mut self, value: Option<u64>) {
        self.byte(value.is_some().into());
        if let Some(value) = value {
            self.unsigned(value);
        }
    }

    /// A length that is too long to be counted is written as the longest: who wrote it refuses the whole for its size.
    pub(super) fn length(&mut self, length: usize) {
        self.0.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
    }

    /// Bytes whose length is known.
    pub(super) fn raw(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// A text.
    pub(super) fn text(&mut self, text: &str) {
        self.length(text.len());
        self.raw(text.as_bytes());
    }

    /// All of it.
    pub(super) fn finish(self) -> Vec<u8> {
        self.0
    }
}

/// Takes fields away, in the order in which they were appended; `None`: there is no such field.
#[derive(Debug)]
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// From the beginning.
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Bytes whose length is known.
    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }

    /// One byte.
    pub(super) fn byte(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    /// A byte that is 0 or 1.
    pub(super) fn flag(&mut self) -> Option<bool> {
        match self.byte()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    /// As [`Writer::unsigned`].
    pub(super) fn unsigned(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    /// As [`Writer::signed`].
    pub(super) fn signed(&mut self) -> Option<i64> {
        self.array().map(i64::from_be_bytes)
    }

    /// As [`Writer::maybe_unsigned`].
    #[expect(clippy::option_option, reason = "no number, and no field: both are short-lived")]
    pub(super) fn maybe_unsigned(&mut self) -> Option<Option<u64>> {
        if self.flag()? { self.unsigned().map(Some) } else { Some(None) }
    }

    /// A number of things of at least this many bytes each; what is left has room for them.
    pub(super) fn length(&mut self, bytes_min: usize) -> Option<usize> {
        let length = usize::try_from(u32::from_be_bytes(self.array()?)).ok()?;
        (length.checked_mul(bytes_min)? <= self.0.len()).then_some(length)
    }

    /// As [`Writer::text`].
    pub(super) fn text(&mut self) -> Option<&'a str> {
        let length = self.length(1)?;
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        std::str::from_utf8(taken).ok()
    }

    /// Nothing may be left.
    pub(super) fn end(self) -> Option<()> {
        self.0.is_empty().then_some(())
    }
}
