//! One error of a configuration as text: its line with a caret, what was expected, what to do. Drawn in colours with the feature
//! `terminal`; without it, for routers, in the same form by little code of our own.

#[cfg(feature = "terminal")]
mod drawn;
#[cfg(any(test, not(feature = "terminal")))]
mod plain;

#[cfg(feature = "terminal")]
pub(super) use self::drawn::draw;
#[cfg(not(feature = "terminal"))]
pub(super) use self::plain::draw;
