//! The registry against a naive matcher that looks at every entry.

use proptest::prelude::*;

use super::*;
use crate::spiffe::parse_id;
use crate::workload::{Doubts, Selector, Selectors};

fn selectors(numbers: &[u8]) -> Selectors {
    numbers.iter().map(|number| Selector::new("unix", format!("uid:{number}"))).collect()
}

fn entry(id: &str, numbers: &[u8]) -> RegistrationEntry {
    RegistrationEntry::new(
        id,
        parse_id(&format!("spiffe://td/{id}")).unwrap(),
        selectors(numbers),
        &format!("test:{id}"),
    )
}

/// Ids of the winner and the tied, by looking at every entry.
fn naive(entries: &[RegistrationEntry], process: &Selectors) -> Vec<String> {
    let mut all: Vec<_> = entries
        .iter()
        .filter(|entry| entry.selectors.iter().all(|selector| process.contains(selector)))
        .collect();
    let most = all.iter().map(|entry| entry.selectors.len()).max().unwrap_or(0);
    all.retain(|entry| entry.selectors.len() == most);
    let mut ids: Vec<_> = all.into_iter().map(|entry| entry.id.clone()).collect();
    ids.sort();
    ids
}

/// Ids of all that match, in the order that a workload is told them.
fn naive_all(entries: &[RegistrationEntry], process: &Selectors) -> Vec<String> {
    let mut all: Vec<_> = entries
        .iter()
        .filter(|entry| entry.selectors.iter().all(|selector| process.contains(selector)))
        .map(|entry| (std::cmp::Reverse(entry.selectors.len()), entry.id.clone()))
        .collect();
    all.sort();
    all.into_iter().map(|(_, id)| id).collect()
}

fn ids(lookup: &Lookup) -> Vec<String> {
    lookup.entry.iter().chain(&lookup.tied).map(|entry| entry.id.clone()).collect()
}

proptest! {
    #[test]
    fn finds_what_a_naive_matcher_finds(
        sets in prop::collection::vec(prop::collection::vec(0..8_u8, 1..5), 0..30),
        process in prop::collection::vec(0..8_u8, 0..8),
    ) {
        // Ids out of order, so that the order of the input cannot decide.
        let entries: Vec<_> = sets
            .iter()
            .enumerate()
            .map(|(index, set)| entry(&format!("e{}", (index * 7) % 31), set))
            .collect();
        let registry = Registry::new(entries.clone()).unwrap();
        let process = selectors(&process);
        prop_assert_eq!(ids(&registry.find(&process)), naive(&entries, &process));
        let all: Vec<_> = registry.find_all(&process).iter().map(|it| it.id.clone()).collect();
        prop_assert_eq!(&all, &naive_all(&entries, &process));
        let winner = registry.find(&process).entry.map(|it| it.id.clone());
        prop_assert_eq!(all.first(), winner.as_ref());
    }

    #[test]
    fn near_misses_are_entries_that_lack_something(
        sets in prop::collection::vec(prop::collection::vec(0..8_u8, 1..5), 0..30),
        process in prop::collection::vec(0..8_u8, 0..8),
    ) {
        let entries = sets.iter().enumerate().map(|(n, set)| entry(&format!("e{n}"), set)).collect();
        let process = selectors(&process);
        let misses = Registry::new(entries).unwrap().near_misses(&process);
        prop_assert!(misses.len() <= 5);
        prop_assert!(misses.is_sorted_by_key(|miss| std::cmp::Reverse(miss.matched)));
        for miss in misses {
            prop_assert!(miss.matched > 0);
            prop_assert!(!process.contains(&miss.missing));
            prop_assert!(miss.entry.selectors.contains(&miss.missing));
        }
    }
}

#[test]
fn most_selectors_win() {
    let registry = Registry::new(vec![entry("a", &[1]), entry("b", &[1, 2])]).unwrap();
    assert_eq!(ids(&registry.find(&selectors(&[1, 2, 3]))), ["b"]);
    assert_eq!(ids(&registry.find(&selectors(&[1, 3]))), ["a"]);
    assert_eq!(registry.find(&selectors(&[2, 3])), Lookup::default());
    assert_eq!(registry.find(&Selectors::new()), Lookup::default());
}

#[test]
fn of_several_the_lowest_id_wins_and_the_others_are_told() {
    let all = vec![entry("b", &[1, 2]), entry("c", &[1, 3]), entry("a", &[2, 3]), entry("d", &[1])];
    let registry = Registry::new(all).unwrap();
    assert_eq!(ids(&registry.find(&selectors(&[1, 2, 3]))), ["a", "b", "c"]);
}

#[test]
fn entries_with_the_same_selectors_are_twins() {
    let all = vec![entry("b", &[1, 2]), entry("a", &[2, 1]), entry("c", &[1])];
    let twins = Registry::new(all).unwrap().twins();
    assert_eq!(twins.len(), 1);
    assert_eq!(twins[0].iter().map(|it| it.id.as_str()).collect::<Vec<_>>(), ["a", "b"]);
}

#[test]
fn tells_everything_that_is_wrong() {
    let errors =
        Registry::new(vec![entry("a", &[1]), entry("a", &[2]), entry("b", &[])]).unwrap_err();
    assert!(matches!(errors[0], RegistryError::DuplicateId { .. }), "{errors:?}");
    assert!(matches!(errors[1], RegistryError::NoSelectors { .. }), "{errors:?}");
}

#[test]
fn tells_the_first_selector_that_failed() {
    let registry = Registry::new(vec![entry("a", &[1, 2, 3]), entry("b", &[1, 9])]).unwrap();
    let misses = registry.near_misses(&selectors(&[1, 2]));
    assert_eq!(misses[0].entry.id, "a");
    assert_eq!((misses[0].matched, misses[0].missing.to_string()), (2, "unix:uid:3".to_owned()));
    assert_eq!((misses[1].matched, misses[1].missing.to_string()), (1, "unix:uid:9".to_owned()));
}

#[test]
fn a_lookup_looks_only_at_entries_filed_under_its_selectors() {
    // Every entry shares a selector with every other; each has a rare one of its own.
    let shared = Selector::new("unix", "uid:0");
    let all = (0..10_000).map(|n| {
        let own = Selector::new("unix", format!("path:/bin/{n}"));
        RegistrationEntry {
            selectors: Selectors::from([shared.clone(), own]),
            ..entry(&format!("e{n}"), &[])
        }
    });
    let registry = Registry::new(all.collect()).unwrap();
    assert!(registry.longest_bucket() <= 1);
    let process = Selectors::from([shared, Selector::new("unix", "path:/bin/77")]);
    assert_eq!(ids(&registry.find(&process)), ["e77"]);
}

#[test]
fn what_is_in_doubt_names_nobody_else() {
    let all =
        |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Selectors>();
    let make = |id: &str, texts: &[&str]| {
        RegistrationEntry::new(
            id,
            parse_id(&format!("spiffe://td/{id}")).unwrap(),
            all(texts),
            "test",
        )
    };
    let registry = Registry::new(vec![
        make("any", &["unix:uid:7"]),
        make("named", &["unix:uid:7", "unix:user:alice"]),
        make("grouped", &["unix:uid:8", "unix:supplementary_group:staff"]),
        make("digested", &["unix:uid:7", "unix:path:/bin/a", "unix:sha256:00"]),
    ])
    .unwrap();
    let rival = |texts: &[&str], doubts: Doubts| {
        let process = all(texts);
        let found = registry.find(&process).entry;
        registry.rival(&process, doubts, found.as_deref()).map(|entry| entry.id.clone())
    };
    let (user, groups) =
        (Doubts { user: true, ..Doubts::default() }, Doubts { groups: true, ..Doubts::default() });
    let digest = Doubts { digest: true, ..Doubts::default() };
    assert_eq!(rival(&["unix:uid:7"], Doubts::default()), None);
    assert_eq!(rival(&["unix:uid:7"], user).as_deref(), Some("named"));
    assert_eq!(rival(&["unix:uid:7"], groups), None, "no entry of this user asks for a group");
    assert_eq!(rival(&["unix:uid:8"], groups).as_deref(), Some("grouped"), "or it has none at all");
    assert_eq!(rival(&["unix:uid:9"], user), None);
    assert_eq!(rival(&["unix:uid:7"], digest), None, "the path is known, and another");
    assert_eq!(rival(&["unix:uid:7", "unix:path:/bin/a"], digest).as_deref(), Some("digested"));
    // It has the best entry already: what else may hold changes nothing.
    let best = ["unix:uid:7", "unix:path:/bin/a", "unix:sha256:00"];
    assert_eq!(rival(&best, user), None);
}
