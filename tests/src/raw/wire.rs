//! The data types of SSH (RFC 4251 section 5), written without checking anything: what is sent may be wrong on
//! purpose.

/// Message numbers (RFC 4250 section 4.1.2), as far as the tests use them.
pub mod msg {
    #![allow(missing_docs, reason = "the names are those of the RFC")]
    pub const DISCONNECT: u8 = 1;
    pub const IGNORE: u8 = 2;
    pub const UNIMPLEMENTED: u8 = 3;
    pub const DEBUG: u8 = 4;
    pub const SERVICE_REQUEST: u8 = 5;
    pub const SERVICE_ACCEPT: u8 = 6;
    pub const EXT_INFO: u8 = 7;
    pub const KEXINIT: u8 = 20;
    pub const NEWKEYS: u8 = 21;
    pub const KEX_ECDH_INIT: u8 = 30;
    pub const KEX_ECDH_REPLY: u8 = 31;
    pub const USERAUTH_REQUEST: u8 = 50;
    pub const USERAUTH_FAILURE: u8 = 51;
    pub const USERAUTH_SUCCESS: u8 = 52;
    pub const USERAUTH_BANNER: u8 = 53;
    pub const USERAUTH_PK_OK: u8 = 60;
    pub const USERAUTH_INFO_REQUEST: u8 = 60;
    pub const USERAUTH_INFO_RESPONSE: u8 = 61;
    pub const GLOBAL_REQUEST: u8 = 80;
    pub const REQUEST_SUCCESS: u8 = 81;
    pub const REQUEST_FAILURE: u8 = 82;
    pub const CHANNEL_OPEN: u8 = 90;
    pub const CHANNEL_OPEN_CONFIRMATION: u8 = 91;
    pub const CHANNEL_OPEN_FAILURE: u8 = 92;
    pub const CHANNEL_WINDOW_ADJUST: u8 = 93;
    pub const CHANNEL_DATA: u8 = 94;
    pub const CHANNEL_EXTENDED_DATA: u8 = 95;
    pub const CHANNEL_EOF: u8 = 96;
    pub const CHANNEL_CLOSE: u8 = 97;
    pub const CHANNEL_REQUEST: u8 = 98;
    pub const CHANNEL_SUCCESS: u8 = 99;
    pub const CHANNEL_FAILURE: u8 = 100;
}

/// A message that is being written.
#[derive(Clone, Debug, Default)]
pub struct Msg(pub Vec<u8>);

impl Msg {
    /// A message of this number.
    pub fn new(kind: u8) -> Self {
        Self(vec![kind])
    }

    /// Bytes without a length.
    pub fn raw(mut self, bytes: impl AsRef<[u8]>) -> Self {
        self.0.extend_from_slice(bytes.as_ref());
        self
    }

    /// `byte` and `boolean`.
    pub fn byte(self, byte: u8) -> Self {
        self.raw([byte])
    }

    /// `uint32`.
    pub fn u32(self, number: u32) -> Self {
        self.raw(number.to_be_bytes())
    }

    /// `string`.
    pub fn string(self, text: impl AsRef<[u8]>) -> Self {
        let text = text.as_ref();
        let length = u32::try_from(text.len()).expect("a string of a test fits");
        self.u32(length).raw(text)
    }

    /// A positive `mpint` of these big-endian bytes.
    pub fn mpint(self, number: &[u8]) -> Self {
        let start = number.iter().position(|byte| *byte != 0);
        let number = start.map_or(&[][..], |start| &number[start..]);
        let sign: &[u8] = match number.first() {
            Some(first) if *first >= 0x80 => &[0],
            Some(_) | None => &[],
        };
        self.string([sign, number].concat())
    }
}

impl AsRef<[u8]> for Msg {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// A message that is being read; what is missing is `None`.
#[derive(Clone, Copy, Debug)]
pub struct Fields<'a>(pub &'a [u8]);

impl<'a> Fields<'a> {
    /// This many bytes.
    pub fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    /// `byte`.
    pub fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|byte| byte[0])
    }

    /// `uint32`.
    pub fn u32(&mut self) -> Option<u32> {
        let bytes = self.take(4)?;
        Some(u32::from_be_bytes(bytes.try_into().ok()?))
    }

    /// `string`.
    pub fn string(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.u32()?).ok()?;
        self.take(length)
    }

    /// `string`, as text for people.
    pub fn text(&mut self) -> String {
        String::from_utf8_lossy(self.string().unwrap_or_default()).into_owned()
    }
}
