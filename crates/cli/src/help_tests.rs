//! The tree of commands and what their help shows: every command has an example, and every example is one that parses.

use clap::{CommandFactory, Parser};

use crate::{Command, Global};

#[derive(Debug, Parser)]
#[command(name = "weir")]
struct Weir {
    #[command(flatten)]
    _global: Global,
    #[command(subcommand)]
    _command: Command,
}

/// Every command below the root with its path, groups included.
fn commands() -> Vec<(String, clap::Command)> {
    let mut found = Vec::new();
    let mut open = vec![(String::new(), Weir::command())];
    while let Some((path, command)) = open.pop() {
        for child in command.get_subcommands() {
            let path = format!("{path} {}", child.get_name());
            open.push((path.clone(), child.clone()));
            found.push((path, child.clone()));
        }
    }
    found
}

fn after_help(command: &clap::Command) -> String {
    command.get_after_help().map(ToString::to_string).unwrap_or_default()
}

/// Splits a line as a shell does, as far as examples need it: quotes, and an end at a pipe, a redirection, a remark or a
/// closing bracket.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), String::new(), None);
    for c in line.chars().chain([' ']) {
        match (c, quote) {
            ('\'' | '"', None) => quote = Some(c),
            (c, Some(open)) if c == open => quote = None,
            (c, Some(_)) => word.push(c),
            ('|' | '>' | '&' | '#' | ')', None) => {
                words.push(word);
                break;
            }
            (' ', None) => words.push(std::mem::take(&mut word)),
            (c, None) => word.push(c),
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

#[test]
fn the_tree_of_commands_is_sound() {
    Weir::command().debug_assert();
}

#[test]
fn every_command_and_group_has_an_example_of_itself() {
    for (path, command) in commands() {
        let help = after_help(&command);
        assert!(help.starts_with("Example"), "weir{path} has no example");
        assert!(
            help.contains(&format!("weir{path} "))
                || help.ends_with(&format!("weir{path}"))
                || help.contains(&format!("weir{path}\n")),
            "weir{path} shows no example of itself:\n{help}"
        );
        let examples = help.lines().filter(|line| line.starts_with("  weir ")).count();
        assert_eq!(help.starts_with("Examples:"), examples > 1, "weir{path}: one Example, several Examples");
    }
}

#[test]
fn every_example_parses() {
    let mut parsed = 0;
    for (path, command) in commands() {
        let help = after_help(&command).replace("\\\n", " ").replace("$(weir", "\n  weir");
        for line in help.lines().filter_map(|line| line.strip_prefix("  weir ")) {
            let tried = Weir::try_parse_from([vec!["weir".to_owned()], words(line)].concat());
            assert!(tried.is_ok(), "weir{path}: {line:?}: {:?}", tried.err().map(|error| error.to_string()));
            parsed += 1;
        }
    }
    assert!(parsed >= commands().len(), "only {parsed} examples were found");
}

#[test]
fn every_flag_is_described_and_every_duration_is_called_a_span() {
    for (path, command) in commands() {
        for arg in command.get_arguments().filter(|arg| !["help", "version"].contains(&arg.get_id().as_str()))
        {
            assert!(arg.get_help().is_some(), "weir{path}: {} has no help", arg.get_id());
            let names = arg.get_value_names().unwrap_or_default();
            let span = arg
                .get_default_values()
                .iter()
                .filter_map(|text| text.to_str())
                .any(|text| !text.is_empty() && weir_config::duration::parse(text).is_ok());
            assert!(
                !span || names.iter().any(|name| name == "SPAN"),
                "weir{path}: {} is a span",
                arg.get_id()
            );
        }
    }
}

#[test]
fn both_spellings_of_disabling_are_taken() {
    for line in [
        "device create a --disabled",
        "device create a --disable",
        "device update a --disable",
        "device update a --disabled",
        "device update a --enable",
        "device update a --enabled",
        "rule update a --disabled",
        "tenant update a --enabled",
    ] {
        assert!(Weir::try_parse_from(["weir"].into_iter().chain(line.split(' '))).is_ok(), "{line}");
    }
    assert!(Weir::try_parse_from(["weir", "device", "update", "a", "--disabled", "--enabled"]).is_err());
}

#[test]
fn spans_have_a_unit() {
    let ttl =
        |text: &str| Weir::try_parse_from(["weir", "device", "credential", "issue", "a", "--ttl", text]);
    assert!(ttl("1h30m").is_ok() && ttl("0s").is_ok() && ttl("500ms").is_ok());
    for text in ["", "30", "h", "1h30", "-1h", "1.5h", "1w", "99999999999999999999d", "9999999999999999d"] {
        assert!(ttl(text).is_err(), "{text:?}");
    }
}
