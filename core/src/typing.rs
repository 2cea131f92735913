//! How far apart two words are, for suggestions after a typing error.

/// The longest word that is compared, in characters: none of ours comes near it, and what people send
/// could make the comparison long.
const LONGEST: usize = 64;

/// The least number of letters added, left out, replaced or swapped with their neighbour that make one
/// word of the other; `usize::MAX` where one is longer than any word of ours.
#[must_use]
pub fn errors(a: &str, b: &str) -> usize {
    let letters = |word: &str| word.chars().take(LONGEST + 1).collect::<Vec<char>>();
    let (a, b) = (letters(a), letters(b));
    if a.len().max(b.len()) > LONGEST {
        return usize::MAX;
    }
    let mut before: Vec<usize> = Vec::new();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut next = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let at = |row: &[usize], k: usize| row.get(k).copied().unwrap_or(usize::MAX - 1);
            let mut best = (at(&row, j) + usize::from(x != y))
                .min(at(&row, j + 1) + 1)
                .min(at(&next, j) + 1);
            let swapped = i > 0 && j > 0 && a.get(i - 1) == Some(y) && b.get(j - 1) == Some(x);
            if swapped {
                best = best.min(at(&before, j - 1) + 1);
            }
            next.push(best);
        }
        before = std::mem::replace(&mut row, next);
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn each_slip_of_a_finger_counts_once() {
        for (wrong, right, count) in [
            ("role", "role", 0),
            ("roles", "role", 1),
            ("rle", "role", 1),
            ("rola", "role", 1),
            ("rloe", "role", 1),
            ("requst", "request", 1),
            ("", "role", 4),
            ("söhne", "sohne", 1),
        ] {
            assert_eq!(errors(wrong, right), count, "{wrong} {right}");
        }
    }

    #[test]
    fn a_word_longer_than_any_of_ours_is_far_from_everything() {
        let long = "x".repeat(LONGEST + 1);
        assert_eq!(errors(&long, &long), usize::MAX);
        assert_eq!(errors("role", &long), usize::MAX);
    }

    proptest! {
        #[test]
        fn it_is_the_same_both_ways_and_nothing_only_for_equals(a in "[a-c]{0,8}", b in "[a-c]{0,8}") {
            prop_assert_eq!(errors(&a, &b), errors(&b, &a));
            prop_assert_eq!(errors(&a, &b) == 0, a == b);
        }
    }
}
