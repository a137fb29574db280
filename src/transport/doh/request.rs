//! How a query stands in an HTTP request ([RFC 8484](https://www.rfc-editor.org/rfc/rfc8484) §4.1): method, target and
//! the few header fields it needs. Nothing in a request tells one user of this program from another: no user agent,
//! no cookie, no language (RFC 8484 §8.2). Sending it is the connection's business.

use crate::config::settings::{DohMethod, Host};
use crate::transport::TransportError;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE};
use http::uri::{Authority, InvalidUri, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderValue, Method, Request, Uri, Version};

/// The one media type of queries and answers (RFC 8484 §6).
pub(super) const DNS_MESSAGE: &str = "application/dns-message";

/// The port that `:authority` does not name (RFC 9110 §4.2.2).
const HTTPS_PORT: u16 = 443;

/// Octets of nearly every query: padded to one block (RFC 8467 §4.1). Its length stands in the template.
const USUAL_LEN: usize = 128;

/// All of a server's requests that does not change from query to query.
#[derive(Debug)]
pub(in crate::transport) struct RequestTemplate {
    /// How a query travels.
    method: DohMethod,
    /// The whole target with POST; with GET everything before the query's octets.
    target: Uri,
    /// Scheme and authority for the targets of GET.
    authority: Authority,
    /// Path, up to and with `dns=`; empty with POST.
    get_prefix: String,
    /// The fields that are always the same.
    headers: HeaderMap,
}

/// A request's head, and its body if it has one.
pub(in crate::transport) type Sendable = (Request<()>, Option<Bytes>);

impl RequestTemplate {
    /// Makes the template of the server at `host`; `path` begins with a slash.
    ///
    /// # Errors
    /// A host or path that cannot stand in a URI.
    pub(in crate::transport) fn new(
        host: &Host,
        port: u16,
        path: &str,
        method: DohMethod,
    ) -> Result<Self, InvalidUri> {
        let authority = if port == HTTPS_PORT { host.to_string() } else { format!("{host}:{port}") };
        let authority = Authority::try_from(authority)?;
        let joint = if path.contains('?') { '&' } else { '?' };
        let media_type = HeaderValue::from_static(DNS_MESSAGE);
        let mut headers = HeaderMap::with_capacity(4);
        headers.insert(ACCEPT, media_type.clone());
        let get_prefix = match method {
            DohMethod::Post => {
                headers.insert(CONTENT_TYPE, media_type);
                headers.insert(CONTENT_LENGTH, HeaderValue::from(USUAL_LEN));
                String::new()
            }
            DohMethod::Get => format!("{path}{joint}dns="),
        };
        let target = target(authority.clone(), PathAndQuery::try_from(path)?);
        Ok(Self { method, target, authority, get_prefix, headers })
    }

    /// Returns the server's URI, as it is dialled.
    pub(super) fn target(&self) -> &Uri {
        &self.target
    }

    /// Wraps a query, which has ID 0 so that caches on the way may serve (RFC 8484 §4.1).
    ///
    /// # Errors
    /// A query too long for a URI, with GET.
    pub(in crate::transport) fn request(&self, query: &Bytes) -> Result<Sendable, TransportError> {
        let mut request = Request::new(());
        *request.version_mut() = Version::HTTP_2;
        *request.headers_mut() = self.headers.clone();
        match self.method {
            DohMethod::Post => {
                *request.method_mut() = Method::POST;
                *request.uri_mut() = self.target.clone();
                if query.len() != USUAL_LEN {
                    request.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(query.len()));
                }
                // The same octets: a Bytes is a handle.
                Ok((request, Some(query.clone())))
            }
            DohMethod::Get => {
                *request.uri_mut() = self.get_target(query)?;
                Ok((request, None))
            }
        }
    }

    /// Writes the query into a target: base64url without padding (RFC 8484 §4.1.1).
    fn get_target(&self, query: &Bytes) -> Result<Uri, TransportError> {
        let mut path = String::with_capacity(self.get_prefix.len() + query.len().div_ceil(3) * 4);
        path.push_str(&self.get_prefix);
        URL_SAFE_NO_PAD.encode_string(query, &mut path);
        let path = PathAndQuery::from_maybe_shared(Bytes::from(path))
            .map_err(|error| TransportError::Http2 { reason: error.to_string() })?;
        Ok(target(self.authority.clone(), path))
    }
}

/// Puts a URI together from checked parts.
fn target(authority: Authority, path: PathAndQuery) -> Uri {
    let mut parts = http::uri::Parts::default();
    parts.scheme = Some(Scheme::HTTPS);
    parts.authority = Some(authority);
    parts.path_and_query = Some(path);
    // All three parts are there, which is all that could be wrong with them.
    Uri::from_parts(parts).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{IpAddr, Ipv6Addr};

    /// A query of 17 octets: its base64 would need padding.
    const QUERY: &[u8] = b"\0\0\x01\0\0\x01\0\0\0\0\0\0\0\0\x02\0\x01";

    fn template(host: &str, port: u16, path: &str, method: DohMethod) -> RequestTemplate {
        RequestTemplate::new(&Host::Name(host.into()), port, path, method).unwrap()
    }

    fn fields(request: &Request<()>) -> Vec<(String, String)> {
        let mut fields: Vec<_> = request
            .headers()
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
            .collect();
        fields.sort();
        fields
    }

    #[test]
    fn post_carries_the_query_as_its_body_and_three_fields() {
        let template = template("dns.example", 443, "/dns-query", DohMethod::Post);
        let (request, body) = template.request(&Bytes::from_static(QUERY)).unwrap();
        assert_eq!(request.method(), Method::POST);
        assert_eq!(request.uri(), "https://dns.example/dns-query");
        assert_eq!(request.version(), Version::HTTP_2);
        let expected = [("accept", DNS_MESSAGE), ("content-length", "17"), ("content-type", DNS_MESSAGE)];
        assert_eq!(fields(&request), expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
        assert_eq!(body.unwrap(), QUERY);
    }

    #[test]
    fn post_tells_the_length_of_every_query() {
        let template = template("dns.example", 443, "/dns-query", DohMethod::Post);
        for len in [USUAL_LEN - 1, USUAL_LEN, USUAL_LEN + 128] {
            let (request, body) = template.request(&Bytes::from(vec![0; len])).unwrap();
            let told: Vec<_> = request.headers().get_all(CONTENT_LENGTH).iter().collect();
            assert_eq!(told, [&len.to_string()]);
            assert_eq!(body.unwrap().len(), len);
        }
    }

    #[test]
    fn get_carries_the_query_in_the_target_without_padding() {
        let template = template("dns.example", 443, "/dns-query", DohMethod::Get);
        let (request, body) = template.request(&Bytes::from_static(QUERY)).unwrap();
        assert_eq!(request.method(), Method::GET);
        assert_eq!(request.uri(), "https://dns.example/dns-query?dns=AAABAAABAAAAAAAAAAACAAE");
        assert_eq!(fields(&request), [("accept".to_owned(), DNS_MESSAGE.to_owned())]);
        assert_eq!(body, None);
    }

    #[test]
    fn get_is_url_safe() {
        let template = template("dns.example", 443, "/q", DohMethod::Get);
        let (request, _) = template.request(&Bytes::from_static(b"\xfb\xff\xfe")).unwrap();
        assert_eq!(request.uri(), "https://dns.example/q?dns=-__-");
    }

    #[test]
    fn get_adds_to_a_path_that_has_a_query_already() {
        let template = template("dns.example", 443, "/q?profile=a", DohMethod::Get);
        let (request, _) = template.request(&Bytes::from_static(b"\0\0\0")).unwrap();
        assert_eq!(request.uri(), "https://dns.example/q?profile=a&dns=AAAA");
    }

    #[test]
    fn authority_names_the_port_unless_it_is_443() {
        let named = template("dns.example", 8443, "/dns-query", DohMethod::Post);
        assert_eq!(named.target(), "https://dns.example:8443/dns-query");
        let host = Host::Address(IpAddr::V6(Ipv6Addr::LOCALHOST));
        let address = RequestTemplate::new(&host, 443, "/dns-query", DohMethod::Post).unwrap();
        assert_eq!(address.target(), "https://[::1]/dns-query");
    }

    #[test]
    fn a_query_too_long_for_a_uri_is_an_error() {
        let template = template("dns.example", 443, "/q", DohMethod::Get);
        assert!(template.request(&Bytes::from(vec![0; 65_535])).is_err());
    }
}
