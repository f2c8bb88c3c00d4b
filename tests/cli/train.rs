//! The program that trains, and how it is started.

use std::process::Stdio;

use assert_cmd::Command;

use crate::support::{alone, script};

#[test]
fn who_has_no_trainer_is_told_how_to_get_it() {
    let folder = tempfile::tempdir().unwrap();
    for args in [&["train", "--help"][..], &["train", "recipe.toml", "--data", "a", "--out", "b"], &["export", "run"]] {
        let output = Command::from_std(alone(folder.path())).args(args).assert().code(1).get_output().stderr.clone();
        let text = String::from_utf8(output).unwrap();
        assert!(text.contains("not installed") && text.contains("cargo install --path codec-train"), "{text}");
    }
}

/// The trainer takes the place of the program, so that signals and `mpirun` reach it; arguments are handed on as they are.
#[test]
fn the_trainer_beside_the_program_takes_its_place() {
    let folder = tempfile::tempdir().unwrap();
    script(&folder.path().join("codec-train"), "#!/bin/sh\necho $$ \"$@\"\nexit 7\n");
    for (args, handed) in [
        (&["train", "r.toml", "--data", "a b", "--quiet"][..], "train r.toml --data a b --quiet"),
        (&["train", "--quiet", "r.toml"], "train --quiet r.toml"),
        (&["train", "--help"], "train --help"),
        (&["help", "train"], "train --help"),
        (&["help", "export"], "export --help"),
        (&["export", "run", "-o", "m"], "export run -o m"),
    ] {
        let child = alone(folder.path()).args(args).stdout(Stdio::piped()).spawn().unwrap();
        let id = child.id();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(7));
        assert_eq!(String::from_utf8(output.stdout).unwrap().trim(), format!("{id} {handed}"));
    }
}
