//! What could not be asked is told of as unknown.

use std::fs;

use crate::harness::{Sandbox, Tampering};

#[test]
fn what_a_list_or_doctor_cannot_read_is_unknown_and_never_nothing() {
    if !Tampering::is_possible() {
        return;
    }
    let sandbox = Sandbox::with_config("engine = \"none\"\nprobe = false\n");
    let daemon = sandbox.daemon();
    let repo = sandbox.repo("app");
    daemon.put(&repo.path);
    let warned = |part: &str| {
        let rows = sandbox.list();
        rows.at(&repo.path).warnings.iter().any(|warning| warning.contains(part))
    };
    let checked = |part: &str| {
        let checks = daemon.get("/v1/checks").ok();
        let about = |check: &&serde_json::Value| check["detail"].as_str().unwrap().contains(part);
        checks.as_array().unwrap().iter().find(about).map(|check| check["status"].clone())
    };
    assert!(!warned("unknown") && checked("unknown").is_none());
    let fault = Tampering::at(&daemon, "/proc/net/tcp", "openat", "error=EACCES");
    assert!(warned("who listens on its ports is unknown"));
    assert_eq!(checked("who listens on the ports of worktrees is unknown").unwrap(), "warn");
    assert!(checked("no port of a worktree is taken").is_none(), "nobody can say so");
    drop(fault);
    assert!(!warned("unknown") && checked("unknown").is_none());
    let head = repo.path.join(".git/HEAD");
    fs::remove_file(&head).unwrap();
    fs::create_dir(&head).unwrap();
    assert!(warned("its branch is unknown"), "{:#?}", sandbox.list());
}
