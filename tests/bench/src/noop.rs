//! Prints one line and does nothing else: the least that a Rust program takes.
#![expect(clippy::print_stdout, reason = "it is all that this program is for")]

fn main() {
    println!("PORT_OFFSET='0'");
}
