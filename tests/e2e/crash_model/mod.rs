//! A model of git, the disk and the registry, and random steps that are taken in the model and in the world: real git, the
//! real daemon, killed, halted, started and left without events in between. Whenever everything comes to rest the two have
//! to agree. What fails is made as short as it gets, and told.
//!
//! `WTD_MODEL_SEED` takes the steps of one seed again; `WTD_SOAK_MINUTES` takes new ones for so long, and then everything has
//! to be noticed by events alone: else the daemon looks for what no event told of every two seconds.

mod mirror;
mod model;
mod settle;
mod step;
mod world;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use proptest::strategy::{BoxedStrategy, Just, Strategy as _, Union};
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};
use proptest_state_machine::ReferenceStateMachine;

use self::model::Model;
use self::step::Step;
use self::world::World;
use crate::harness::{DEADLINE, Daemon, Sandbox, require};

/// How many steps one world lives through.
const STEPS: usize = 250;

/// The steps, and the model that they are possible in. `CLOCK`: whether the clock can jump.
struct Steps<const CLOCK: bool>;

impl<const CLOCK: bool> ReferenceStateMachine for Steps<CLOCK> {
    type State = Model;
    type Transition = Step;

    fn init_state() -> BoxedStrategy<Model> {
        Just(Model::new(CLOCK)).boxed()
    }

    fn transitions(model: &Model) -> BoxedStrategy<Step> {
        Union::new_weighted(model.possible().into_iter().map(|(weight, step)| (weight, Just(step))).collect())
            .boxed()
    }

    fn apply(model: Model, step: &Step) -> Model {
        model.apply(step)
    }

    fn preconditions(model: &Model, step: &Step) -> bool {
        model.is_possible(step)
    }
}

/// Takes the steps in a world of their own. It is kept when they fail for the first time.
fn live(
    model: Model,
    steps: &[Step],
    seen: Option<&AtomicUsize>,
    clock: Option<PathBuf>,
) -> Result<(), TestCaseError> {
    let resync = if std::env::var_os("WTD_SOAK_MINUTES").is_some() { "1h" } else { "2s" };
    let sandbox = Sandbox::with_config(&format!("engine = \"none\"\nprobe = false\nresync = \"{resync}\"\n"));
    let outcome = live_in(&sandbox, model, steps, seen, clock);
    if outcome.is_err() && seen.is_some() {
        sandbox.keep();
    }
    outcome
}

fn live_in(
    sandbox: &Sandbox,
    mut model: Model,
    steps: &[Step],
    seen: Option<&AtomicUsize>,
    clock: Option<PathBuf>,
) -> Result<(), TestCaseError> {
    // What has failed once is told from what has not with less patience.
    let patience = if seen.is_some() { DEADLINE } else { Duration::from_secs(3) };
    let mut world = World::new(sandbox, clock, patience);
    for (number, step) in steps.iter().enumerate() {
        if let Some(seen) = seen {
            seen.fetch_add(1, Ordering::SeqCst);
        }
        model = model.apply(step);
        world.take(&model, step).map_err(|why| {
            let log = world.daemon.as_ref().map(Daemon::log).unwrap_or_default();
            let tail: Vec<&str> = log.lines().rev().take(40).collect();
            let tail: Vec<&str> = tail.into_iter().rev().collect();
            TestCaseError::fail(format!("step {number}, {step:?}: {why}\n{}", tail.join("\n")))
        })?;
    }
    Ok(())
}

/// Lets worlds live whose steps follow from `seed`.
fn run<const CLOCK: bool>(seed: u64, worlds: u32, clock: Option<&PathBuf>) {
    let config = Config {
        cases: worlds,
        // What fails is told at once as well, so this need not take long.
        max_shrink_iters: 200,
        max_shrink_time: 60_000,
        failure_persistence: None,
        ..Config::default()
    };
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    let strategy = Steps::<CLOCK>::sequential_strategy(STEPS);
    let outcome =
        runner.run(&strategy, |(model, steps, seen): (Model, Vec<Step>, Option<Arc<AtomicUsize>>)| {
            let outcome = live(model, &steps, seen.as_deref(), clock.cloned());
            if let (Some(seen), Err(why)) = (seen, &outcome) {
                // What is left of it after it was made shorter can be another failure.
                let taken = &steps[..seen.load(Ordering::SeqCst)];
                eprintln!("WTD_MODEL_SEED={seed}, before it is made shorter: {why}\n{taken:?}");
            }
            outcome
        });
    match outcome {
        Ok(()) => {}
        Err(TestError::Fail(why, (_, steps, _))) => panic!("WTD_MODEL_SEED={seed}: {why}\n{steps:?}"),
        Err(TestError::Abort(why)) => panic!("WTD_MODEL_SEED={seed}: {why}"),
    }
}

/// Lets `count` threads live through `worlds` worlds each, or through as many as there is time for.
fn run_all<const CLOCK: bool>(first_seed: u64, count: u64, worlds: u32, clock: Option<&PathBuf>) {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    if let Some(seed) = number("WTD_MODEL_SEED") {
        return run::<CLOCK>(seed, worlds, clock);
    }
    let end = number("WTD_SOAK_MINUTES").map(|minutes| Instant::now() + Duration::from_secs(minutes * 60));
    let failed = AtomicBool::new(false);
    let thread = |mut seed: u64| {
        if let Some(end) = end {
            seed = seed.wrapping_add(std::process::id().into()).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            while Instant::now() < end && !failed.load(Ordering::Relaxed) {
                run::<CLOCK>(seed, 1, clock);
                seed = seed.wrapping_add(1);
            }
        } else {
            run::<CLOCK>(seed, worlds, clock);
        }
    };
    let thread = &thread;
    std::thread::scope(|scope| {
        for seed in first_seed..first_seed + count {
            let name = std::thread::current().name().unwrap_or_default().to_owned();
            std::thread::Builder::new().name(name).spawn_scoped(scope, move || thread(seed)).unwrap();
        }
    });
}

#[test]
fn whatever_happens_in_whatever_order_offsets_are_unique_and_stay() {
    run_all::<false>(1, 4, 8, None);
}

#[test]
fn whatever_the_clock_shows_offsets_are_unique_and_stay() {
    let library = world::clock_library();
    if require::part(library.is_some(), "faketime is not installed") {
        run_all::<true>(101, 1, 4, library.as_ref());
    }
}
