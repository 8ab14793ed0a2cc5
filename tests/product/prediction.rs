//! What `simulate` says of the lab's guests, and what they did when they were really booted (`scripts/lab`).
//!
//! The images are `scripts/lab/slim.py`'s: the bytes that the simulator reads of each guest, and per fault the
//! clusters that differ.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::support::run;

/// Cases that are not yet predicted right. Every one is a bug; nothing may join the list.
const WRONG: &[&str] = &[];

fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Unpacks one slim image, unless it is there; `None` where there is none.
fn unpack(folder: &Path, name: &str) -> Option<PathBuf> {
    let target = folder.join(name);
    if !target.exists() {
        let packed = std::fs::read(project("test-images/lab").join(format!("{name}.zst"))).ok()?;
        let mut content = Vec::new();
        ruzstd::decoding::StreamingDecoder::new(packed.as_slice())
            .unwrap()
            .read_to_end(&mut content)
            .unwrap();
        std::fs::write(&target, content).unwrap();
    }
    Some(target)
}

/// The disks of a case, in its order.
fn disks(folder: &Path, case: &Value) -> Option<Vec<String>> {
    let guest = case["guest"].as_str().unwrap();
    let mut disks = Vec::new();
    for number in 0..if matches!(guest, "g5md" | "g8data" | "g9data") { 2 } else { 1 } {
        let mut image = unpack(folder, &format!("{guest}.{number}.qcow2"))?;
        if let Some(fault) = case["fault"].as_str() {
            image = unpack(folder, &format!("{guest}.{fault}.{number}.qcow2"))?;
        }
        disks.push(image.display().to_string());
    }
    Some(match case["disks"].as_array() {
        Some(chosen) => chosen
            .iter()
            .map(|number| disks[usize::try_from(number.as_u64().unwrap()).unwrap()].clone())
            .collect(),
        None => disks,
    })
}

/// How the simulator says that a case ends, by which rule, and on how many stages that were not examined it rests.
fn predicted(folder: &Path, case: &Value, disks: &[String]) -> (String, Option<String>, usize) {
    let mut line = vec!["simulate", "--output", "json", "--bus", case["bus"].as_str().unwrap()];
    line.extend(["--firmware", case["firmware"].as_str().unwrap()]);
    let first = format!("+{}", case["first"].as_u64().unwrap_or(0));
    if first != "+0" {
        line.extend(["--disk-order", first.as_str()]);
    }
    let passphrase = folder.join("passphrase").display().to_string();
    if case["unlocked"] == true {
        std::fs::write(&passphrase, "labpass").unwrap();
        line.extend(["--passphrase-file", passphrase.as_str()]);
    }
    line.extend(disks.iter().map(String::as_str));
    let (_, out, err) = run(&line);
    assert!(out.starts_with('{'), "{line:?}: {err}");
    let told: Value = serde_json::from_str(&out).unwrap();
    let scenarios = told["scenarios"].as_array().unwrap();
    // Asked about an extra disk, it also tells how it is without.
    let Some(scenario) = scenarios.last() else { return ("no answer".to_owned(), None, 0) };
    let outcome = scenario["outcome"].as_str().unwrap_or("no answer").to_owned();
    let assumptions = scenario["assumptions"].as_array().map_or(0, Vec::len);
    (outcome, scenario["cause"]["rule"].as_str().map(str::to_owned), assumptions)
}

/// Whether a disk is there twice, so that it is chance which of the two is the root.
fn has_twins(case: &Value) -> bool {
    let disks = case["disks"].as_array().map_or(&[][..], Vec::as_slice);
    disks.iter().enumerate().any(|(at, disk)| disks[..at].contains(disk))
}

#[test]
fn every_guest_ends_as_it_did_when_it_was_booted() {
    let text = std::fs::read_to_string(project("scripts/lab/outcomes.json")).unwrap();
    let book: Value = serde_json::from_str(&text).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (mut judged, mut unknown, mut wrong) = (0, 0, BTreeSet::new());
    for (id, case) in book["cases"].as_object().unwrap() {
        let Some(disks) = disks(folder.path(), case) else { continue };
        let (told, rule, assumptions) = predicted(folder.path(), case, &disks);
        // Two rules are divided by a bar where both say it.
        let is_true_cause = case["rule"]
            .as_str()
            .is_none_or(|known| known.split('|').any(|known| rule.as_deref() == Some(known)));
        judged += 1;
        if told == "unknown" {
            unknown += 1;
        } else if told != case["outcome"].as_str().unwrap() {
            println!("{id}: told {told}, was {}", case["outcome"]);
            wrong.insert(id.as_str());
        } else if case["fault"].is_null() && !has_twins(case) && assumptions > 0 {
            println!("{id}: nothing is broken, and {assumptions} stages are not examined");
            wrong.insert(id.as_str());
        } else if !is_true_cause {
            println!("{id}: blamed {rule:?}, was {}", case["rule"]);
            wrong.insert(id.as_str());
        }
    }
    let known = WRONG.iter().copied().collect::<BTreeSet<_>>();
    assert_eq!(wrong.difference(&known).collect::<Vec<_>>(), Vec::<&&str>::new());
    for right in known.difference(&wrong) {
        println!("{right} is right by now and may leave the list");
    }
    assert!(judged >= 60, "only {judged} cases have images");
    assert!(unknown * 20 <= judged, "{unknown} of {judged} are unknown");
}
