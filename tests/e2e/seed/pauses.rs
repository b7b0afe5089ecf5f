//! Containers that a copy pauses: whatever becomes of the request, they go on in the end.

use std::process::Child;
use std::time::Duration;

use super::{NO_REPLICATION, begin, on_a_shop};
use crate::harness::engine_proxy::Fault;
use crate::harness::until;

#[track_caller]
fn failed(client: Child) -> String {
    let ended = client.wait_with_output().unwrap();
    let told = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(1), "{told}");
    told
}

/// By then a daemon has cleared away that would not wait.
#[expect(clippy::disallowed_methods, reason = "that nothing happens sends no event")]
fn let_a_second_pass() {
    std::thread::sleep(Duration::from_secs(1));
}

#[test]
fn what_is_being_paused_when_a_copy_is_given_up_goes_on() {
    on_a_shop(NO_REPLICATION, |proxy, shop, _daemon, path| {
        proxy.arm_at(Fault::Hold, "/pause", 0, 0);
        let mut client = begin(shop, path);
        proxy.await_held();
        client.kill().unwrap();
        client.wait().unwrap();
        let_a_second_pass();
        proxy.let_pass();
        shop.awaits_nothing_half_made();
    });
}

#[test]
fn a_pause_that_the_engine_makes_long_after_the_copy_was_given_up_is_undone() {
    on_a_shop(NO_REPLICATION, |proxy, shop, _daemon, path| {
        proxy.arm_at(Fault::Hold, "/pause", 0, 0);
        let client = begin(shop, path);
        proxy.await_held();
        let told = failed(client);
        assert!(told.contains("did not answer"), "{told}");
        // Nothing is copied while that can still happen.
        let refused = shop.seed(path, &[]).fails(1);
        assert!(refused.contains("has not said yet"), "{refused}");
        proxy.let_pass();
        shop.awaits_nothing_half_made();
        until("nothing is in the next copy's way", || shop.seed(path, &[]), |seeded| seeded.code == Some(0));
        assert!(!shop.is_paused());
    });
}

#[test]
fn a_pause_that_the_engine_makes_after_the_next_daemons_first_look_is_undone() {
    on_a_shop(NO_REPLICATION, |proxy, shop, daemon, path| {
        proxy.arm_at(Fault::Hold, "/pause", 0, 0);
        let client = begin(shop, path);
        proxy.await_held();
        daemon.kill9();
        failed(client);
        let daemon = shop.services.daemon(shop.sandbox);
        shop.awaits_nothing_half_made();
        proxy.let_pass();
        until(
            "it is undone",
            || daemon.log(),
            |log| log.contains("a container that a copy had paused goes on"),
        );
        shop.awaits_nothing_half_made();
    });
}

#[test]
fn what_could_not_be_told_to_go_on_is_told_so_as_soon_as_the_engine_answers() {
    on_a_shop(NO_REPLICATION, |proxy, shop, _daemon, path| {
        proxy.arm_at(Fault::DownBefore, "/unpause", 0, 0);
        failed(begin(shop, path));
        assert!(shop.is_paused());
        assert!(proxy.disarm());
        shop.awaits_nothing_half_made();
    });
}

#[test]
fn a_copy_of_what_went_on_meanwhile_is_given_up() {
    on_a_shop(NO_REPLICATION, |proxy, shop, _daemon, path| {
        // The archive that is unpacked into the copy.
        proxy.arm_at(Fault::Hold, "PUT", 2, 0);
        let client = begin(shop, path);
        proxy.await_held();
        shop.services.done("POST", "/containers/shop-db-1/unpause", None);
        proxy.let_pass();
        let told = failed(client);
        assert!(told.contains("shop-db-1 went on while volume db_data_0 was copied"), "{told}");
        shop.awaits_nothing_half_made();
    });
}
