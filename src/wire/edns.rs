//! The OPT pseudo-record (RFC 6891): read and checked, written anew, never edited in place.

/// A checked view of an OPT record.
#[derive(Clone, Copy, Debug)]
pub struct EdnsRef<'a> {
    pub udp_payload: u16,
    pub extended_rcode: u8,
    pub version: u8,
    pub dnssec_ok: bool,
    /// Options, lengths checked.
    options: &'a [u8],
}
/// Option codes.
pub const OPTION_ECS: u16 = 8;
pub const OPTION_KEEPALIVE: u16 = 11;
pub const OPTION_PADDING: u16 = 12;
pub const OPTION_EDE: u16 = 15;
impl<'a> EdnsRef<'a> {
    /// (code, content) in order.
    pub fn options(&self) -> impl Iterator<Item = (u16, &'a [u8])> + use<'a> {
        let _ = self.options;
        std::iter::empty()
    }
    pub fn option(&self, _code: u16) -> Option<&'a [u8]> {
        todo!()
    }
}
