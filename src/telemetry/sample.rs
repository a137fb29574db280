//! One sample of the metrics page, of each kind. Which metrics there are is `page`'s matter.

use super::histogram::Reading;
use prometheus_client::encoding::{EncodeGaugeValue, EncodeLabelSet, MetricEncoder, NoLabelSet};
use std::fmt;

/// Writes a counter without labels.
pub(super) fn counter(out: &mut MetricEncoder<'_>, value: u64) -> fmt::Result {
    out.encode_counter::<NoLabelSet, _, f64>(&value, None)
}

/// Writes a counter with labels.
pub(super) fn labelled(out: &mut MetricEncoder<'_>, labels: &impl EncodeLabelSet, value: u64) -> fmt::Result {
    counter(&mut out.encode_family(labels)?, value)
}

/// Writes a gauge that may be unknown.
pub(super) fn optional_gauge(
    out: &mut MetricEncoder<'_>,
    value: Option<impl EncodeGaugeValue>,
) -> fmt::Result {
    value.map_or(Ok(()), |value| out.encode_gauge(&value))
}

/// Writes a histogram with a label.
pub(super) fn histogram(out: &mut MetricEncoder<'_>, label: (&str, &str), reading: &Reading) -> fmt::Result {
    let buckets = reading.buckets();
    let labels = [label];
    let mut out = out.encode_family(&labels)?;
    out.encode_histogram::<NoLabelSet>(reading.sum_seconds(), reading.count(), &buckets, None)
}
