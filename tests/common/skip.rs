//! What a test says besides passing and failing. A skip is a third outcome: it
//! has a reason and it is counted.

use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};

static SKIPS: AtomicUsize = AtomicUsize::new(0);

/// Reports that the calling test cannot run here. The caller returns.
///
/// libtest has no final hook, so the limit is enforced at the skip itself.
///
/// # Panics
/// When more tests were skipped than `ELASTIC_MEM_MAX_SKIPS` allows.
pub fn skip(reason: &str) {
    let count = SKIPS.fetch_add(1, Ordering::SeqCst) + 1;
    say(&format!("SKIP {count}: {reason}"));
    let limit = std::env::var("ELASTIC_MEM_MAX_SKIPS")
        .ok()
        .map(|text| text.parse::<usize>().expect("ELASTIC_MEM_MAX_SKIPS"));
    if let Some(limit) = limit {
        assert!(count <= limit, "skip not allowed here: {reason}");
    }
}

/// Prints to whoever runs the suite. What goes through `eprintln!` libtest
/// shows of failed tests only.
pub fn say(text: &str) {
    // One write: other tests print at the same time.
    let _ = std::io::stderr().write_all(format!("{text}\n").as_bytes());
}
