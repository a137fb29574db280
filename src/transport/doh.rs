//! stub

/// Makes the transport of a DNS over HTTPS server; called by `transport::build`.
pub(super) fn build(
    _spec: &crate::config::settings::ServerSpec,
    _around: &super::Surroundings,
) -> Result<Box<dyn super::Transport>, super::tls::TlsSetupError> {
    todo!()
}
