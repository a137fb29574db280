//! The commands of a page: its blocks of shell, each with the mark above it that says how it is run, or why it is not.
//! A mark is an HTML comment, which readers do not see. [CONTRIBUTING.md](../../CONTRIBUTING.md#the-commands-of-the-pages)
//! has its words.

/// A block of commands of a page.
#[derive(Debug)]
pub struct Block {
    /// Where its first command stands.
    pub line: usize,
    pub text: String,
    pub mark: Mark,
}

/// What is done with a block.
#[derive(Debug)]
pub enum Mark {
    /// Nothing, for this reason.
    NotRun(String),
    Tested(Vec<Word>),
}

/// How a block is run, and what has to come of it.
#[derive(Debug, PartialEq, Eq)]
pub enum Word {
    /// The network does this from now on.
    Network(String),
    /// A command that prepares what the page takes for granted.
    Given(String),
    /// A program that stayed is interrupted first.
    Ends,
    /// A line that is not run.
    LeavesOut(String),
    /// Typed when the commands ask; they have a terminal.
    Answers(String),
    /// The last line is a program that stays, and is ready when it has said this.
    Stays(String),
    /// The commands go on for ever: they are interrupted after so many seconds.
    Interrupted(u64),
    /// The exit code, when it is another one than 0.
    Exits(i32),
    /// Has to be in what the commands say.
    Prints(String),
    /// Must not be in it.
    Lacks(String),
    /// A command that has to succeed afterwards.
    Then(String),
}

/// Reads a page.
///
/// # Errors
/// A block without a mark, or with one that cannot be read: where, and what is wrong.
pub fn read(page: &str) -> Result<Vec<Block>, String> {
    let mut blocks = Vec::new();
    let mut comment: Option<String> = None;
    let mut lines = page.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        if let Some(start) = line.strip_prefix("<!-- ") {
            let mut text = start.to_owned();
            while !text.contains("-->") {
                let (_, next) = lines.next().ok_or("a comment does not end")?;
                text.push('\n');
                text.push_str(next);
            }
            comment = text.split("-->").next().map(|text| text.trim().to_owned());
        } else if line.trim_start().starts_with("```") {
            let body: Vec<&str> =
                lines.by_ref().map(|(_, line)| line).take_while(|line| line.trim() != "```").collect();
            let mark = comment.take();
            if line.trim() == "```sh" {
                let mark = mark.ok_or_else(|| format!("line {}: a block without a mark", number + 1))?;
                let mark = self::mark(&mark).map_err(|why| format!("line {}: {why}", number + 1))?;
                blocks.push(Block { line: number + 2, text: body.join("\n"), mark });
            }
        } else if !line.trim().is_empty() {
            comment = None;
        }
    }
    Ok(blocks)
}

/// Reads a mark.
fn mark(text: &str) -> Result<Mark, String> {
    if let Some(reason) = text.strip_prefix("not run: ") {
        return Ok(Mark::NotRun(reason.to_owned()));
    }
    let mut lines = text.lines().map(str::trim);
    match lines.next() {
        Some("tested") => lines.map(word).collect::<Result<_, _>>().map(Mark::Tested),
        _ => Err(format!("a mark is `tested` or `not run: REASON`, not {text:?}")),
    }
}

/// Reads a line of a mark.
fn word(line: &str) -> Result<Word, String> {
    let (first, rest) = line.split_once(' ').unwrap_or((line, ""));
    let rest = rest.to_owned();
    let number = || rest.parse().map_err(|_| format!("{line:?}: a number has to follow"));
    Ok(match first {
        "network" => Word::Network(rest),
        "given" => Word::Given(rest),
        "ends" => Word::Ends,
        "leaves-out" => Word::LeavesOut(rest),
        "answers" => Word::Answers(rest),
        "stays-until" => Word::Stays(rest),
        "interrupted-after" => Word::Interrupted(number()?),
        "exits" => Word::Exits(i32::try_from(number()?).map_err(|error| error.to_string())?),
        "prints" => Word::Prints(rest),
        "lacks" => Word::Lacks(rest),
        "then" => Word::Then(rest),
        _ => return Err(format!("{first:?} is no word of a mark")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_read_with_their_blocks() {
        let page = "text\n<!-- tested\nprints one two\nexits 1\n-->\n```sh\na\nb\n```\n\n<!-- not run: no -->\n\n```sh\nc\n```\n";
        let blocks = read(page).unwrap();
        assert_eq!((blocks[0].line, blocks[0].text.as_str()), (7, "a\nb"));
        let Mark::Tested(words) = &blocks[0].mark else { panic!("not tested") };
        assert_eq!(words, &[Word::Prints("one two".into()), Word::Exits(1)]);
        assert!(matches!(&blocks[1].mark, Mark::NotRun(reason) if reason == "no"));
    }

    #[test]
    fn blocks_without_a_good_mark_are_found() {
        for page in [
            "```sh\na\n```\n",
            "<!-- tested -->\ntext\n```sh\na\n```\n",
            "<!-- not run -->\n```sh\na\n```\n",
            "<!-- tested\nshouts a\n-->\n```sh\na\n```\n",
            "<!-- tested -->\n```toml\n```\n```sh\na\n```\n",
        ] {
            assert!(read(page).is_err(), "{page}");
        }
        assert!(read("```text\na\n```\n").unwrap().is_empty());
    }
}
