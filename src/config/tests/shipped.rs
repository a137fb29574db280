//! The files that come with the program.

use super::*;

/// The files that come with the program.
fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config").join(name)
}

/// Takes the `#` off the lines that begin with one of `marks`.
fn uncomment(text: &str, marks: &[&str]) -> String {
    let bare = |line: &str| {
        let rest = line.strip_prefix('#').unwrap_or(line);
        let setting = rest.starts_with(|c: char| c.is_ascii_lowercase() || c == '[');
        let example = rest.starts_with("   ");
        let wanted = setting && marks.contains(&"setting") || example && marks.contains(&"example");
        if wanted { rest.trim_start().to_owned() } else { line.to_owned() }
    };
    text.lines().map(bare).collect::<Vec<_>>().join("\n")
}

/// Lists all keys of a tree by the names of the key table.
fn key_names(table: &Table, prefix: &str, found: &mut BTreeSet<String>) {
    for (key, entry) in table {
        let free = matches!(prefix, "server." | "group.");
        let name = format!("{prefix}{}", if free { "*" } else { key });
        match &entry.node.value {
            Value::Table(inner) => key_names(inner, &format!("{name}."), found),
            Value::List(items) if name == "route" => {
                for item in items {
                    key_names(item.table().unwrap(), "route.*.", found);
                }
            }
            Value::Text(_) | Value::Integer(_) | Value::Boolean(_) | Value::List(_) | Value::Foreign(_) => {
                found.insert(name);
            }
        }
    }
}

#[test]
fn uncommenting_the_default_file_changes_nothing() {
    let text = fs::read_to_string(shipped("veildns.toml")).unwrap();
    assert_eq!(good(&text), good(""), "everything in it is a comment");
    let mut uncommented = good(&uncomment(&text, &["setting"]));
    for listen in &mut uncommented.listen {
        assert!(std::mem::replace(&mut listen.written, false));
    }
    assert_eq!(uncommented, good(""));
}

#[test]
fn the_default_file_has_every_key_and_no_other() {
    let text = fs::read_to_string(shipped("veildns.toml")).unwrap();
    let mut faults = Faults::default();
    let tree = file::parse(0, &uncomment(&text, &["setting", "example"]), &mut faults);
    assert!(faults.is_empty(), "{faults:?}");
    let mut found = BTreeSet::new();
    key_names(&tree, "", &mut found);
    let known: BTreeSet<String> = keys::KEYS.iter().map(|key| key.name.to_owned()).collect();
    assert_eq!(found, known);
    for key in keys::KEYS.iter().filter(|key| !key.name.contains('*')) {
        let Some(default) = key.default else { continue };
        let last = key.name.rsplit('.').next().unwrap();
        assert!(text.contains(&format!("\n#{last} = {default}\n")), "{} = {default}", key.name);
    }
}

#[test]
fn the_examples_in_the_default_file_are_valid() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("home.pem"), "").unwrap();
    let text = fs::read_to_string(shipped("veildns.toml")).unwrap();
    let text = uncomment(&text, &["setting", "example"]);
    let settings = from_text(&text, folder.path()).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(settings.routes.len(), 1);
}

#[test]
fn every_file_that_comes_with_the_program_loads_without_a_notice() {
    let mut seen = 0;
    for entry in fs::read_dir(shipped("")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        seen += 1;
        let source = Source { path: Some(path), overrides: Overrides::default() };
        let settings = load(&source).unwrap_or_else(|errors| panic!("{errors}"));
        assert_eq!(settings.notices, Vec::<String>::new());
    }
    assert!(seen >= 4, "{seen} files");
}

#[test]
fn a_router_sends_its_own_names_home() {
    let source = Source { path: Some(shipped("router.toml")), overrides: Overrides::default() };
    let settings = load(&source).unwrap_or_else(|errors| panic!("{errors}"));
    assert!(settings.groups[settings.routes[0].group].own);
    assert!(settings.access.contains(&"fe80::/10".parse().unwrap()));
}

#[test]
fn a_summary_fits_eighty_columns_and_says_what_is_unencrypted() {
    for name in ["veildns.toml", "laptop.toml", "router.toml", "untrusted-network.toml"] {
        let source = Source { path: Some(shipped(name)), overrides: Overrides::default() };
        let mut settings = load(&source).unwrap_or_else(|errors| panic!("{errors}"));
        settings.origin = Origin::BuiltIn;
        let page = summary::summary(&settings);
        assert!(page.lines().all(|line| line.chars().count() <= 80), "{page}");
        assert!(page.lines().count() < 50, "{page}");
        assert_eq!(page.contains("UNENCRYPTED"), name == "router.toml", "{page}");
    }
}

proptest::proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(text in "\\PC{0,80}") {
        let _ = from_text(&text, Path::new("")).map_err(|errors| errors.to_string());
    }

    #[test]
    fn no_mutation_of_a_file_makes_the_reader_panic(at in 0usize..6000, with in "\\PC{0,3}") {
        let text = fs::read_to_string(shipped("veildns.toml")).unwrap();
        let mut text = uncomment(&text, &["setting", "example"]);
        let at = (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap();
        text.insert_str(at, &with);
        let _ = from_text(&text, Path::new("")).map_err(|errors| errors.to_string());
    }
}
