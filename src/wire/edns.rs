//! The OPT pseudo-record ([RFC 6891](https://www.rfc-editor.org/rfc/rfc6891)): read and checked, written anew from
//! values, never edited in place and never passed on (§6.1.1). What an option means is for its reader to know.

use super::MAX_UDP_REPLY;
use super::ede::{Ede, EdeCode};
use std::time::Duration;

/// A checked view of an OPT record.
#[derive(Clone, Copy, Debug)]
pub struct EdnsRef<'a> {
    /// The longest UDP message the sender takes, as it says.
    pub udp_payload: u16,
    /// The upper eight bits of the response code.
    pub extended_rcode: u8,
    /// The EDNS version; 0 is the only one there is.
    pub version: u8,
    /// DO (RFC 3225).
    pub dnssec_ok: bool,
    /// Options, lengths checked.
    options: &'a [u8],
}

/// EDNS Client Subnet (RFC 7871).
pub const OPTION_ECS: u16 = 8;
/// edns-tcp-keepalive (RFC 7828).
pub const OPTION_KEEPALIVE: u16 = 11;
/// Padding (RFC 7830).
pub const OPTION_PADDING: u16 = 12;
/// Extended DNS Error (RFC 8914).
pub const OPTION_EDE: u16 = 15;

/// Octets of an OPT record without options: root owner, type, class, TTL, RDLENGTH.
pub(crate) const OPT_FIXED_LEN: usize = 11;
/// Octets of an option before its content: code and length.
pub(crate) const OPTION_HEAD_LEN: usize = 4;
/// DO, in the third octet of the TTL field.
const FLAG_DO: u8 = 0x80;

impl<'a> EdnsRef<'a> {
    /// Takes an OPT record's CLASS, TTL and RDATA apart; None when the options' lengths do not add up.
    pub(crate) fn from_record(class: u16, ttl: u32, rdata: &'a [u8]) -> Option<Self> {
        let [extended_rcode, version, flags, _] = ttl.to_be_bytes();
        let mut rest = rdata;
        while !rest.is_empty() {
            (_, _, rest) = split_option(rest)?;
        }
        let dnssec_ok = flags & FLAG_DO != 0;
        Some(Self { udp_payload: class, extended_rcode, version, dnssec_ok, options: rdata })
    }

    /// True when there are none.
    pub fn is_bare(&self) -> bool {
        self.options.is_empty()
    }

    /// Returns (code, content) of the options, in order.
    pub fn options(&self) -> Options<'a> {
        Options(self.options)
    }

    /// Returns the content of the first option with this code.
    pub fn option(&self, code: u16) -> Option<&'a [u8]> {
        self.options().find_map(|(found, content)| (found == code).then_some(content))
    }

    /// Returns the first Extended DNS Error: INFO-CODE and the octets of EXTRA-TEXT (RFC 8914 §2).
    pub fn ede(&self) -> Option<(EdeCode, &'a [u8])> {
        let (code, text) = self.option(OPTION_EDE)?.split_first_chunk()?;
        Some((EdeCode(u16::from_be_bytes(*code)), text))
    }
}

/// Options of an OPT record. See [`EdnsRef::options`].
#[derive(Clone, Debug)]
pub struct Options<'a>(&'a [u8]);

impl<'a> Iterator for Options<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (code, content, rest) = split_option(self.0)?;
        self.0 = rest;
        Some((code, content))
    }
}

/// Cuts the first option off: its code, its content, and what follows.
fn split_option(options: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let (&[code_high, code_low, len_high, len_low], rest) = options.split_first_chunk()?;
    let len = usize::from(u16::from_be_bytes([len_high, len_low]));
    let (content, rest) = rest.split_at_checked(len)?;
    Some((u16::from_be_bytes([code_high, code_low]), content, rest))
}

/// What a reply tells its client in the OPT record, if it has one. Nothing unless it is set.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReplyOptions<'a> {
    /// The client's own Client Subnet option, well formed, which goes back with the scope of the answer (RFC 7871 §7.2.2).
    pub subnet: Option<&'a [u8]>,
    /// How long the client's connection may be idle.
    pub keepalive: Option<IdleTimeout>,
    /// Why there is no answer, or not the usual one.
    pub ede: Option<&'a Ede>,
}

impl<'a> ReplyOptions<'a> {
    /// Returns octets of an OPT record with those of them that have to be in it. The others are left out where there is no
    /// room.
    pub(super) fn opt_len(&self) -> usize {
        OPT_FIXED_LEN + self.subnet.map_or(0, |subnet| OPTION_HEAD_LEN + subnet.len())
    }

    /// Returns the same with a reason.
    pub fn because(self, ede: &'a Ede) -> Self {
        Self { ede: Some(ede), ..self }
    }
}

/// The time-out of an idle connection as clients over TCP are told it, in units of 100 ms; 0 asks them to close
/// ([RFC 7828](https://www.rfc-editor.org/rfc/rfc7828) §3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdleTimeout(pub u16);

impl From<Duration> for IdleTimeout {
    fn from(duration: Duration) -> Self {
        Self(u16::try_from(duration.as_millis() / 100).unwrap_or(u16::MAX))
    }
}

/// An OPT record of a reply.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OptFields<'a> {
    /// The upper eight bits of the response code.
    pub(crate) extended_rcode: u8,
    /// DO, as in the query (RFC 3225 §3).
    pub(crate) dnssec_ok: bool,
    /// The client's Client Subnet option, and the scope to fill in.
    pub(crate) subnet: Option<(&'a [u8], u8)>,
    /// How long the client's connection may be idle.
    pub(crate) keepalive: Option<IdleTimeout>,
    /// Why there is no answer, or not the usual one.
    pub(crate) ede: Option<(EdeCode, &'a str)>,
}

/// Writes the OPT record of a reply to the start of `out` and returns its length; None when `out` is too short.
///
/// An EDE that does not fit loses its text first, then its code: neither is worth a truncated reply, and nor is the time-out.
pub(crate) fn write_opt(out: &mut [u8], fields: &OptFields<'_>) -> Option<usize> {
    let (fixed, room) = out.split_first_chunk_mut::<OPT_FIXED_LEN>()?;
    let mut options_len = 0;
    if let Some((subnet, scope)) = fields.subnet {
        options_len = write_subnet(room, subnet, scope)?;
    }
    if let Some(IdleTimeout(units)) = fields.keepalive {
        let room = room.get_mut(options_len..)?;
        options_len += write_option(room, OPTION_KEEPALIVE, &[&units.to_be_bytes()]).unwrap_or(0);
    }
    if let Some(ede) = fields.ede {
        options_len += write_ede(room.get_mut(options_len..)?, ede).unwrap_or(0);
    }
    let rdlength = u16::try_from(options_len).ok()?;
    *fixed = opt_head(fields.extended_rcode, fields.dnssec_ok, rdlength);
    Some(OPT_FIXED_LEN + options_len)
}

/// Returns the fixed part of an OPT record of ours, version 0.
pub(crate) fn opt_head(extended_rcode: u8, dnssec_ok: bool, rdlength: u16) -> [u8; OPT_FIXED_LEN] {
    /// What we take over UDP, on either side.
    const PAYLOAD: [u8; 2] = {
        assert!(MAX_UDP_REPLY == 1232);
        1232_u16.to_be_bytes()
    };
    let flags = if dnssec_ok { FLAG_DO } else { 0 };
    let [len_high, len_low] = rdlength.to_be_bytes();
    [0, 0, 41, PAYLOAD[0], PAYLOAD[1], extended_rcode, 0, flags, 0, len_high, len_low]
}

/// Writes a Client Subnet option as it came, but for the scope, which is no longer than an address (RFC 7871 §6).
fn write_subnet(out: &mut [u8], subnet: &[u8], scope: u8) -> Option<usize> {
    let (&[family_high, family_low, source, _], address) = subnet.split_first_chunk()?;
    let longest = if [family_high, family_low] == [0, 1] { 32 } else { 128 };
    write_option(out, OPTION_ECS, &[&[family_high, family_low, source, scope.min(longest)], address])
}

/// Writes an EDE option with as much of it as fits, and returns its length.
fn write_ede(out: &mut [u8], (EdeCode(code), text): (EdeCode, &str)) -> Option<usize> {
    let mut with = |text: &str| write_option(out, OPTION_EDE, &[&code.to_be_bytes(), text.as_bytes()]);
    with(text).or_else(|| with(""))
}

/// Writes an option whose content is these parts, and returns its length; None when it does not fit.
fn write_option(out: &mut [u8], code: u16, content: &[&[u8]]) -> Option<usize> {
    let content_len: usize = content.iter().map(|part| part.len()).sum();
    let (head, mut room) = out.get_mut(..OPTION_HEAD_LEN + content_len)?.split_first_chunk_mut()?;
    let [code_high, code_low] = code.to_be_bytes();
    let [len_high, len_low] = u16::try_from(content_len).ok()?.to_be_bytes();
    *head = [code_high, code_low, len_high, len_low];
    for part in content {
        let (place, behind) = room.split_at_mut_checked(part.len())?;
        place.copy_from_slice(part);
        room = behind;
    }
    Some(OPTION_HEAD_LEN + content_len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Octets of an OPT record with an EDE of this text, or without one.
    fn opt_len(ede: Option<&str>) -> usize {
        OPT_FIXED_LEN + ede.map_or(0, |text| OPTION_HEAD_LEN + 2 + text.len())
    }

    /// Reads back what `write_opt` wrote.
    fn reread(opt: &[u8]) -> EdnsRef<'_> {
        assert_eq!(opt[..3], [0, 0, 41]);
        let class = u16::from_be_bytes([opt[3], opt[4]]);
        let ttl = u32::from_be_bytes([opt[5], opt[6], opt[7], opt[8]]);
        assert_eq!(usize::from(u16::from_be_bytes([opt[9], opt[10]])), opt.len() - OPT_FIXED_LEN);
        EdnsRef::from_record(class, ttl, &opt[OPT_FIXED_LEN..]).unwrap()
    }

    #[test]
    fn options_are_found_by_code_and_kept_in_order() {
        let rdata = b"\x00\x08\x00\x04\x00\x01\x00\x00\x00\x0c\x00\x00\x00\x08\x00\x01x";
        let edns = EdnsRef::from_record(4096, 0x0000_8000, rdata).unwrap();
        assert_eq!((edns.udp_payload, edns.version, edns.dnssec_ok), (4096, 0, true));
        let codes: Vec<_> = edns.options().map(|(code, _)| code).collect();
        assert_eq!(codes, [OPTION_ECS, OPTION_PADDING, OPTION_ECS]);
        assert_eq!(edns.option(OPTION_ECS), Some(b"\x00\x01\x00\x00".as_slice()));
        assert_eq!(edns.option(OPTION_KEEPALIVE), None);
    }

    #[test]
    fn options_whose_lengths_do_not_add_up_are_refused() {
        for rdata in [b"\x00".as_slice(), b"\x00\x08\x00", b"\x00\x08\x00\x01", b"\x00\x08\x00\x01xy"] {
            assert!(EdnsRef::from_record(512, 0, rdata).is_none(), "{rdata:?}");
        }
    }

    /// The fields of a record that says this.
    fn saying(ede: Option<(EdeCode, &'static str)>) -> OptFields<'static> {
        OptFields { extended_rcode: 0, dnssec_ok: false, subnet: None, keepalive: None, ede }
    }

    #[test]
    fn a_written_opt_reads_back_with_its_error() {
        let mut out = [0; 64];
        let fields =
            OptFields { extended_rcode: 1, dnssec_ok: true, ..saying(Some((EdeCode::BLOCKED, "why"))) };
        let written = write_opt(&mut out, &fields).unwrap();
        assert_eq!(written, opt_len(Some("why")));
        let edns = reread(&out[..written]);
        assert_eq!((edns.udp_payload, edns.extended_rcode, edns.version), (1232, 1, 0));
        assert!(edns.dnssec_ok);
        assert_eq!(edns.ede(), Some((EdeCode::BLOCKED, b"why".as_slice())));
    }

    #[test]
    fn an_error_that_does_not_fit_loses_its_text_then_its_code() {
        let fields = saying(Some((EdeCode::BLOCKED, "why")));
        let mut out = [0; 64];
        let code_only = write_opt(&mut out[..opt_len(Some("why")) - 1], &fields).unwrap();
        assert_eq!(reread(&out[..code_only]).ede(), Some((EdeCode::BLOCKED, b"".as_slice())));
        let bare = write_opt(&mut out[..opt_len(Some("")) - 1], &fields).unwrap();
        assert_eq!(bare, opt_len(None));
        assert_eq!(reread(&out[..bare]).ede(), None);
        assert_eq!(write_opt(&mut out[..opt_len(None) - 1], &fields), None);
    }

    #[test]
    fn a_client_s_network_goes_back_with_a_scope_no_longer_than_its_address() {
        let scope = |subnet: &'static [u8], scope| {
            let mut out = [0; 64];
            let subnet = Some((subnet, scope));
            let written = write_opt(&mut out, &OptFields { subnet, ..saying(None) }).unwrap();
            reread(&out[..written]).option(OPTION_ECS).unwrap().to_vec()
        };
        assert_eq!(scope(b"\x00\x01\x18\x00\xcb\x00\x71", 20), b"\x00\x01\x18\x14\xcb\x00\x71");
        assert_eq!(scope(b"\x00\x01\x18\x00\xcb\x00\x71", 200), b"\x00\x01\x18\x20\xcb\x00\x71");
        assert_eq!(scope(b"\x00\x02\x08\x00\x20", 200), b"\x00\x02\x08\x80\x20");
    }

    #[test]
    fn a_network_has_to_fit_and_a_time_out_need_not() {
        let subnet = Some((b"\x00\x01\x08\x00\xcb".as_slice(), 8));
        let keepalive = Some(IdleTimeout(100));
        let fields = OptFields { subnet, keepalive, ..saying(Some((EdeCode::BLOCKED, ""))) };
        let needed =
            ReplyOptions { subnet: subnet.map(|(subnet, _)| subnet), ..Default::default() }.opt_len();
        let codes = |room: usize| {
            let mut out = [0; 64];
            let written = write_opt(&mut out[..room], &fields)?;
            Some(reread(&out[..written]).options().map(|(code, _)| code).collect::<Vec<_>>())
        };
        assert_eq!(codes(needed - 1), None);
        assert_eq!(codes(needed), Some(vec![OPTION_ECS]));
        assert_eq!(codes(needed + 6), Some(vec![OPTION_ECS, OPTION_KEEPALIVE]));
        assert_eq!(codes(64), Some(vec![OPTION_ECS, OPTION_KEEPALIVE, OPTION_EDE]));
    }

    #[test]
    fn time_outs_are_told_in_tenths_of_a_second() {
        assert_eq!(IdleTimeout::from(Duration::from_millis(10_050)), IdleTimeout(100));
        assert_eq!(IdleTimeout::from(Duration::from_secs(10_000)), IdleTimeout(u16::MAX));
        let mut out = [0; 64];
        let keepalive = Some(IdleTimeout(300));
        let written = write_opt(&mut out, &OptFields { keepalive, ..saying(None) }).unwrap();
        assert_eq!(reread(&out[..written]).option(OPTION_KEEPALIVE), Some([1, 44].as_slice()));
    }

    proptest! {
        #[test]
        fn no_octets_panic_the_parser(ttl in any::<u32>(), rdata in prop::collection::vec(any::<u8>(), 0..64)) {
            if let Some(edns) = EdnsRef::from_record(0, ttl, &rdata) {
                let octets: usize = edns.options().map(|(_, content)| OPTION_HEAD_LEN + content.len()).sum();
                prop_assert_eq!(octets, rdata.len());
                let _ = edns.ede();
            }
        }
    }
}
