//! The API as a stranger reads it: requests that a program makes up from the daemon's own OpenAPI.

use std::path::{Path, PathBuf};

use crate::harness::{Ran, Sandbox, free_base, require};

/// Where `scripts/schemathesis` puts schemathesis, else where PATH has it.
fn schemathesis() -> Option<PathBuf> {
    let ours = Path::new(env!("CARGO_TARGET_TMPDIR")).parent()?.join("schemathesis/bin/schemathesis");
    ours.is_file().then_some(ours).or_else(|| require::find("schemathesis"))
}

#[test]
fn whatever_is_asked_the_answer_is_a_documented_one() {
    let program = schemathesis();
    if !require::part(program.is_some(), "schemathesis is not installed") {
        return;
    }
    let address = format!("127.0.0.1:{}", free_base());
    let settings = format!("engine = \"none\"\nprobe = false\nlisten = \"{address}\"\n");
    let sandbox = Sandbox::with_config(&settings);
    let repo = sandbox.repo("shop");
    let daemon = sandbox.daemon();
    daemon.put(&repo.path);
    let mut command = sandbox.command(program.unwrap());
    command
        .args(["run", &format!("http://{address}/v1/openapi.json"), "--no-color", "--continue-on-failure"])
        // It does not end.
        .args(["--exclude-path", "/v1/events"])
        .args(["--phases", "examples,coverage,fuzzing", "--max-examples", "30", "--generation-deterministic"])
        .args(["--checks", "not_a_server_error,status_code_conformance,content_type_conformance"])
        .args(["--checks", "response_schema_conformance,response_headers_conformance,unsupported_method"])
        .current_dir(sandbox.path("."));
    let ran = Ran::of(&mut command);
    assert_eq!(ran.code, Some(0), "{}\n{}", ran.text(), ran.stderr);
    // Nothing that was made up has changed anything that is recorded.
    assert_eq!(daemon.put(&repo.path)["offset"], 0);
}
