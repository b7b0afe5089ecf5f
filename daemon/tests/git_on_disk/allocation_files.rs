//! What the allocation files in git dirs claim, and where they lead back to.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use wtd::domain::observation::{Claim, Origin, OriginLook, Recorded};
use wtd_protocol::AllocationFile;
use wtd_protocol::allocation_file::FORMAT;

use super::support::*;

fn write(git_dir: &Path, id: u128, offset: u16) {
    let file = AllocationFile {
        format: FORMAT,
        id: allocation(id).to_string(),
        offset,
        path: "/anywhere".into(),
        path_base64: None,
        variables: BTreeMap::from([("PORT_OFFSET".to_owned(), offset.to_string())]),
    };
    fs::write(git_dir.join("wtd.json"), file.to_bytes().unwrap()).unwrap();
}

fn claimed(claim: &Claim) -> Option<(u128, u16)> {
    let Claim::Allocation { id, offset, .. } = claim else { return None };
    Some((id.0.as_u128(), *offset))
}

#[test]
fn an_allocation_file_is_read_from_each_git_dir() {
    let scratch = Scratch::new();
    let (main, _) = scratch.with_linked();
    let common_dir = main.join(".git");
    assert_eq!(only(&look(&common_dir)).claim, Claim::None);
    write(&common_dir, 1, 0);
    write(&common_dir.join("worktrees/linked"), 2, 10000);
    let seen = look(&common_dir);
    assert_eq!(claimed(&main_of(&seen).unwrap().claim), Some((1, 0)));
    assert_eq!(claimed(&only(&seen).claim), Some((2, 10000)));
    let digests = [&main_of(&seen).unwrap().claim, &only(&seen).claim].map(|claim| match claim {
        Claim::Allocation { digest, .. } => *digest,
        other => panic!("{other:?}"),
    });
    assert_ne!(digests[0], digests[1]);
    for damaged in ["", "{}", "{\"format\":1"] {
        fs::write(common_dir.join("wtd.json"), damaged).unwrap();
        assert!(matches!(main_of(&look(&common_dir)).unwrap().claim, Claim::Unusable(_)));
    }
}

#[test]
fn a_worktree_answers_for_the_allocation_that_its_file_names_wherever_that_was() {
    let scratch = Scratch::new();
    let (main, linked) = scratch.with_linked();
    let common_dir = main.join(".git");
    write(&common_dir.join("worktrees/linked"), 2, 10000);
    let known = recorded(only(&look(&common_dir)), 2);
    // A restored backup: everything is as it was, but no inode is.
    let copy = scratch.path("copy");
    run("cp", ["-a".as_ref(), common_dir.as_os_str(), copy.as_os_str()]);
    fs::remove_dir_all(&common_dir).unwrap();
    fs::rename(&copy, &common_dir).unwrap();
    let seen = look_with(&common_dir, &[known]).observation;
    assert!(is_finished(only(&seen)) && seen.absences.is_empty() && seen.origins.is_empty());
    assert!(linked.exists());
}

#[test]
fn a_copied_allocation_file_leads_back_to_the_git_dir_that_it_was_copied_from() {
    let scratch = Scratch::new();
    let (main, _) = scratch.with_linked();
    let common_dir = main.join(".git");
    write(&common_dir, 1, 0);
    let seen = look(&common_dir);
    let known = recorded(main_of(&seen).unwrap(), 1);
    let copy = scratch.path("copy");
    run("cp", ["-a".as_ref(), main.as_os_str(), copy.as_os_str()]);
    let origin = |known: &Recorded| {
        let seen = look_with(&copy.join(".git"), std::slice::from_ref(known)).observation;
        seen.origins.get(&known.id).cloned()
    };
    let expected = |look| Some(Origin { git_dir: common_dir.clone(), look });
    assert_eq!(origin(&known), expected(OriginLook::Standing));

    fs::remove_dir_all(&main).unwrap();
    assert_eq!(origin(&known), expected(OriginLook::Gone));
    // Another one in its place is not it.
    scratch.repository("main");
    assert_eq!(origin(&known), expected(OriginLook::Gone));

    fs::remove_dir_all(&main).unwrap();
    let mut away = known;
    away.identity.device += 1;
    let found = origin(&away).unwrap();
    assert!(matches!(found.look, OriginLook::Unknown(_)), "{found:?}");
}
