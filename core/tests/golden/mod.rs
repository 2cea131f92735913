//! Comparison with a reviewed text file beside the test. `UPDATE_GOLDEN=1` writes it anew, to be
//! read in the change like code.

use std::path::Path;

/// Fails with the first line that differs between `actual` and the file `name` in `tests/`.
pub fn compare(name: &str, actual: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests")
        .join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, actual).expect("the golden file is writable");
        return;
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    let lines = expected.lines().zip(actual.lines()).enumerate();
    for (number, (expected, actual)) in lines {
        assert_eq!(actual, expected, "{name} differs in line {}", number + 1);
    }
    assert_eq!(actual, expected, "{name} differs in length");
}
