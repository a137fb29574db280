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

/// Columns of what to do about an error, so that 80 hold it behind its head and the margin of a long file.
const WIDTH: usize = 66;

/// Breaks what to do about an error at blanks; what has none is left long rather than cut.
fn folded(help: &str) -> String {
    let mut out = String::new();
    for line in help.lines() {
        let mut used = 0;
        for word in line.split(' ') {
            let length = word.chars().count();
            if used > 0 && used + 1 + length > WIDTH {
                out.push('\n');
                used = 0;
            } else if used > 0 {
                out.push(' ');
                used += 1;
            }
            out.push_str(word);
            used += length;
        }
        out.push('\n');
    }
    out.truncate(out.trim_end().len());
    out
}
