//! The migrations are embedded at compile time; cargo does not see them otherwise.

fn main() {
    println!("cargo::rerun-if-changed=../migrations");
}
