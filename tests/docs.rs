//! Holds the texts of the repository to the code: every key is documented with its default, every example in TOML loads,
//! every relative link leads to a file, and the README holds the two commands that everything begins with.

#[path = "pages/blocks.rs"]
#[allow(dead_code, unreachable_pub, reason = "tests/pages uses all of it")]
mod blocks;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use veildns::config;
use veildns::config::keys::{KEYS, Key};
use veildns::telemetry::bounds::Bound;

/// The texts, from the root of the repository.
const TEXTS: [&str; 21] = [
    "README.md",
    "bench/README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "certs/README.md",
    "docs/architecture.md",
    "docs/configuration.md",
    "docs/containers.md",
    "docs/laptop.md",
    "docs/metrics.md",
    "docs/migrating.md",
    "docs/performance.md",
    "docs/privacy.md",
    "docs/resilience.md",
    "docs/router.md",
    "docs/threat-model.md",
    "docs/tracing.md",
    "docs/troubleshooting.md",
    "docs/untrusted-network.md",
    "packaging/README.md",
    "tests/scenarios/README.md",
];

/// The root of the repository.
fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// One of the texts, or why it cannot be read.
fn read(path: &str) -> Result<String, String> {
    fs::read_to_string(root().join(path)).map_err(|error| format!("{path}: {error}"))
}

/// The cells of a row of a table that begins with `first`; None when there is no such row.
fn row<'a>(text: &'a str, first: &str) -> Option<Vec<&'a str>> {
    let cells = |line: &'a str| line.trim_matches('|').split('|').map(str::trim).collect::<Vec<_>>();
    text.lines().filter(|line| line.starts_with('|')).map(cells).find(|cells| cells.first() == Some(&first))
}

/// The targets of a text's links, outside of code.
fn links(text: &str) -> Vec<&str> {
    let mut outside = true;
    let mut found = Vec::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            outside = !outside;
        }
        let targets =
            line.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target);
        found.extend(targets.filter(|_| outside));
    }
    found
}

/// The blocks of code of a text that are in this language.
fn blocks(text: &str, language: &str) -> Vec<String> {
    let fence = format!("```{language}");
    let mut found = Vec::new();
    let mut lines = text.lines();
    while lines.by_ref().any(|line| line.trim() == fence) {
        let block: Vec<&str> = lines.by_ref().take_while(|line| line.trim() != "```").collect();
        found.push(block.join("\n"));
    }
    found
}

/// The anchor that a heading gets on a page.
fn anchor(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = text.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[test]
fn every_key_is_documented_with_its_default() {
    let text = read("docs/configuration.md").unwrap();
    for key in KEYS {
        let cells =
            row(&text, &format!("`{}`", key.name)).unwrap_or_else(|| panic!("{} is missing", key.name));
        let default = key.default.map_or_else(|| "–".to_owned(), |default| format!("`{default}`"));
        assert_eq!(cells[1], default, "default of {}", key.name);
        assert!(cells[2].len() > 10, "{} has no meaning", key.name);
    }
}

#[test]
fn every_documented_key_exists() {
    let text = read("docs/configuration.md").unwrap();
    let names =
        text.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` | ")).map(|(name, _)| name);
    for name in names {
        assert!(KEYS.iter().any(|key| key.name == name), "{name} is no key");
    }
}

#[test]
fn every_bound_stands_in_the_architecture_with_its_default() {
    let text = read("docs/architecture.md").unwrap();
    let is_bound = |key: &&Key| {
        key.name.starts_with("limits.") || Bound::ALL.into_iter().any(|bound| bound.label() == key.name)
    };
    for key in KEYS.iter().filter(is_bound) {
        let name = format!("`{}`", key.name.trim_start_matches("limits."));
        let cells = row(&text, &name).unwrap_or_else(|| panic!("{} is missing", key.name));
        assert_eq!(cells[1], key.default.unwrap_or_default().trim_matches('"'), "{}", key.name);
    }
}

#[test]
fn every_bound_that_is_counted_stands_in_the_architecture_and_no_other_claims_to_be() {
    let text = read("docs/architecture.md").unwrap();
    for bound in Bound::ALL {
        let name = format!("`{}`", bound.label());
        let cells = row(&text, &name).unwrap_or_else(|| panic!("{name} is missing"));
        assert!(cells[3].contains("reached"), "{name}: {}", cells[3]);
    }
    let claims = text.lines().filter(|line| line.starts_with("| `") && line.contains("reached"));
    let claims = claims.filter(|line| line.split('|').nth(4).is_some_and(|cell| cell.contains("reached")));
    assert_eq!(claims.count(), Bound::ALL.len());
}

#[test]
fn every_relative_link_leads_to_a_file() {
    for name in TEXTS {
        let text = read(name).unwrap();
        let folder = root().join(name).parent().map(Path::to_path_buf).unwrap_or_default();
        for link in links(&text).into_iter().filter(|link| !link.contains("://")) {
            let (path, fragment) = link.split_once('#').unwrap_or((link, ""));
            let target = if path.is_empty() { root().join(name) } else { folder.join(path) };
            assert!(target.exists(), "{name}: {link} leads nowhere");
            if !fragment.is_empty() {
                let linked = fs::read_to_string(&target).unwrap();
                let mut headings = linked.lines().filter(|line| line.starts_with('#'));
                assert!(headings.any(|heading| anchor(heading) == fragment), "{name}: no heading for {link}");
            }
        }
    }
}

#[test]
fn every_example_in_toml_loads() {
    let folder = tempfile::tempdir().unwrap();
    // Files that examples name.
    fs::create_dir_all(folder.path().join("certs")).unwrap();
    for file in ["certs/home.pem", "home.pem"] {
        fs::write(folder.path().join(file), "").unwrap();
    }
    let mut examples = 0;
    for name in TEXTS {
        for block in blocks(&read(name).unwrap(), "toml") {
            let loaded = config::from_text(&block, folder.path());
            assert!(loaded.is_ok(), "{name}:\n{block}\n{}", loaded.unwrap_err());
            examples += 1;
        }
    }
    assert!(examples > 3, "only {examples} examples were found");
}

/// `tests/pages` runs them.
#[test]
fn every_block_of_commands_says_how_it_is_run_or_why_not() {
    let pages = TEXTS
        .iter()
        .filter(|name| name.starts_with("docs/") || ["README.md", "certs/README.md"].contains(name));
    let mut tested = 0;
    for name in pages {
        let blocks = blocks::read(&read(name).unwrap()).unwrap_or_else(|why| panic!("{name}: {why}"));
        tested += blocks.iter().filter(|block| matches!(block.mark, blocks::Mark::Tested(_))).count();
    }
    assert!(tested > 20, "only {tested} blocks are tested");
}

#[test]
fn every_page_is_among_the_texts() {
    for entry in fs::read_dir(root().join("docs")).unwrap() {
        let name = format!("docs/{}", entry.unwrap().file_name().to_string_lossy());
        assert!(!name.ends_with(".md") || TEXTS.contains(&name.as_str()), "{name} is not among TEXTS");
    }
}

/// A name in code on a page, if it looks like that of a test: words, and no key among them.
fn tests_named(text: &str) -> impl Iterator<Item = &str> {
    let code = text.split('`').skip(1).step_by(2);
    code.filter(|word| {
        word.matches('_').count() > 1 && word.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    })
}

/// The text of all Rust files below a folder, and the names of scenarios as if they were functions.
fn sources(folder: &Path) -> io::Result<String> {
    let mut text = String::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if path.is_dir() {
            text.push_str(&sources(&path)?);
        } else if let Some(name) = name.strip_suffix(".scenario") {
            text.push_str(&format!("fn {name}()\n"));
        } else if name.ends_with(".rs") {
            text.push_str(&fs::read_to_string(&path)?);
        }
    }
    Ok(text)
}

#[test]
fn every_test_that_the_threat_model_names_exists() {
    let page = read("docs/threat-model.md").unwrap();
    let sources = ["src", "tests"].map(|folder| sources(&root().join(folder)).unwrap()).concat();
    for name in tests_named(&page) {
        assert!(sources.contains(&format!("fn {name}(")), "there is no test {name}");
    }
    assert!(tests_named(&page).count() > 50);
}

#[test]
fn every_bound_names_a_test_that_exists() {
    let page = read("docs/architecture.md").unwrap();
    let sources = ["src", "tests"].map(|folder| sources(&root().join(folder)).unwrap()).concat();
    let mut bounds = 0;
    for cells in page.lines().skip_while(|line| *line != "## Bounds").skip(1) {
        if cells.starts_with("## ") {
            break;
        }
        let cells: Vec<&str> = cells.trim_matches('|').split('|').collect();
        let [bound, _, _, _, tests] = cells[..] else { continue };
        if !bound.trim().starts_with('`') {
            continue;
        }
        bounds += 1;
        assert!(tests_named(tests).next().is_some(), "{bound} has no test");
        for name in tests_named(tests) {
            assert!(sources.contains(&format!("fn {name}(")), "there is no test {name}");
        }
    }
    assert!(bounds >= Bound::ALL.len(), "only {bounds} rows");
}

#[test]
fn the_readme_begins_with_the_two_commands() {
    let text = read("README.md").unwrap();
    let block = blocks(&text, "sh").into_iter().next().unwrap_or_default();
    let commands: Vec<&str> =
        block.lines().map(|line| line.split('#').next().unwrap_or(line).trim()).collect();
    assert_eq!(commands, ["cargo run --release", "cargo test"]);
}

#[test]
fn no_text_names_a_place_of_the_machine_it_was_written_on() {
    for name in TEXTS {
        let text = read(name).unwrap();
        for place in ["/tmp/", "/home/", "/root/"] {
            assert!(!text.contains(place), "{name} names {place}");
        }
    }
}
