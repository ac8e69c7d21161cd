//! Replays the corpora of the fuzz targets with whatever compiler is at hand.

use egress_tests::fuzzing::TARGETS;
use std::fs;
use std::path::PathBuf;

#[test]
fn every_input_of_every_corpus_goes_through() {
    let corpora = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus");
    for (name, target) in TARGETS {
        let directory = fs::read_dir(corpora.join(name));
        let directory = directory.unwrap_or_else(|error| panic!("no corpus for {name}: {error}"));
        let mut inputs = 0;
        for entry in directory {
            let path = entry.expect("the corpus can be read").path();
            eprintln!("{}", path.display());
            target(&fs::read(&path).expect("an input can be read"));
            inputs += 1;
        }
        assert!(inputs >= 5, "{name} has only {inputs} inputs");
    }
}

#[test]
fn every_target_has_a_program() {
    let fuzz = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fuzz");
    let manifest = fs::read_to_string(fuzz.join("Cargo.toml")).expect("a manifest");
    for (name, _) in TARGETS {
        let program = fs::read_to_string(fuzz.join(format!("fuzz_targets/{name}.rs")));
        assert!(program.is_ok_and(|text| text.contains(&format!("fuzzing::{name}(data)"))));
        assert!(manifest.contains(&format!("name = \"{name}\"")));
    }
}
