//! From staged to confirmed and back.

use super::*;

#[test]
fn a_trial_is_started_three_times_and_then_rolled_back_with_its_reason() {
    let slots = open(served());
    for name in [NEW.0, NEW.1] {
        send(&slots, name, &mut |_| {}).unwrap();
    }
    slots.install(&choice(NEW), &Passes).unwrap();
    for start in 1..=MAX_STARTS {
        let serving = slots.start().unwrap();
        assert_eq!(serving.trial_start, Some(start));
        assert_eq!(serving.generation.bundle, hash(NEW.0));
    }
    let serving = slots.start().unwrap();
    assert_eq!(serving.trial_start, None);
    assert_eq!(serving.generation.bundle, hash(OLD.0));
    let refusal = slots.pointer().unwrap().refusal.unwrap();
    assert_eq!(refusal.bundle, Some(hash(NEW.0)));
    assert_eq!(refusal.reason, "it was started 3 times and not confirmed");
    // Its files are gone, and it can be sent again.
    assert!(!slots.has(hash(NEW.0)).unwrap());
    update(&slots, NEW).unwrap();
    assert_eq!(slots.pointer().unwrap().refusal, None);
}

#[test]
fn a_pair_that_fails_its_trial_is_refused_and_only_the_blamed_file_dropped() {
    let slots = open(served());
    for name in [NEW.0, NEW.1] {
        send(&slots, name, &mut |_| {}).unwrap();
    }
    let err = slots
        .install(&choice(NEW), &Fails(Some(Role::Bundle)))
        .unwrap_err();
    assert_eq!(err.to_string(), "it does not answer");
    assert_eq!(serving_pair(&slots), OLD);
    assert!(!slots.has(hash(NEW.0)).unwrap());
    assert!(slots.has(hash(NEW.1)).unwrap());
    let refusal = slots.pointer().unwrap().refusal.unwrap();
    assert_eq!(refusal.reason, "it does not answer");
}

#[test]
fn one_half_is_installed_beside_the_other_that_is_served() {
    let slots = open(served());
    send(&slots, NEW.0, &mut |_| {}).unwrap();
    let half = Choice {
        bundle: Some(hash(NEW.0)),
        ..Choice::default()
    };
    let Installed::OnTrial(generation) = slots.install(&half, &Passes).unwrap() else {
        panic!("it is new");
    };
    assert_eq!(generation.gallery, hash(OLD.1));
    assert_eq!(
        slots.install(&half, &Passes).unwrap(),
        Installed::Already(generation.clone())
    );
    assert!(matches!(
        slots.confirm(generation.number + 1),
        Err(SlotsError::NotOnTrial { .. })
    ));
    slots.confirm(generation.number).unwrap();
    // Said twice, as after an answer that was lost.
    slots.confirm(generation.number).unwrap();
    assert_eq!(slots.pointer().unwrap().confirmed.unwrap(), generation);
}

#[test]
fn what_is_missing_is_named() {
    let slots = Slots::init(Sim::new(root()), root(), Settings::new(Vec::new())).unwrap();
    assert!(matches!(slots.start(), Err(SlotsError::Empty { .. })));
    assert!(matches!(
        slots.rollback("x"),
        Err(SlotsError::NothingBefore)
    ));
    let bundle_only = Choice {
        bundle: Some(hash(NEW.0)),
        ..Choice::default()
    };
    let text = slots
        .install(&bundle_only, &Passes)
        .unwrap_err()
        .to_string();
    assert!(text.contains("there is no gallery to go with it"), "{text}");
    let text = slots
        .install(&choice(NEW), &Passes)
        .unwrap_err()
        .to_string();
    assert!(text.contains("no bundle with the hash"), "{text}");
    let again = Slots::init(slots.fs, root(), Settings::new(Vec::new()));
    assert!(matches!(again, Err(SlotsError::AlreadySetUp { .. })));
}

#[test]
fn gaps_overlaps_and_wrong_lengths_are_told() {
    let slots = open(served());
    let bytes = content(NEW.0);
    let mut staging = slots.stage(hash(NEW.0), bytes.len() as u64).unwrap();
    staging.write(0, &bytes[..100]).unwrap();
    // Sent twice, with more behind it.
    staging.write(50, &bytes[50..200]).unwrap();
    staging.write(0, &bytes[..200]).unwrap();
    assert_eq!(staging.have(), 200);
    let gap = staging.write(300, &bytes[300..400]).unwrap_err();
    assert!(matches!(
        gap,
        SlotsError::OutOfOrder {
            offset: 300,
            have: 200,
            ..
        }
    ));
    assert!(staging.write(200, &[0; 1 << 16]).is_err());
    assert!(staging.write(u64::MAX, &[0; 2]).is_err());
    assert!(matches!(
        staging.finish(),
        Err(SlotsError::NotWhole { have: 200, .. })
    ));
    for bytes in [0, u64::MAX] {
        assert!(matches!(
            slots.stage(hash(1), bytes),
            Err(SlotsError::Length { .. })
        ));
    }
}

#[test]
fn content_that_is_not_what_was_announced_is_thrown_away() {
    let slots = open(served());
    let bytes = content(NEW.1);
    let mut staging = slots.stage(hash(NEW.0), bytes.len() as u64).unwrap();
    staging.write(0, &bytes).unwrap();
    assert!(matches!(
        staging.finish(),
        Err(SlotsError::OtherContent { .. })
    ));
    assert_eq!(names(&slots, staging::STAGED), [""; 0]);
}

#[test]
fn a_rollback_goes_to_and_fro_between_the_last_two_pairs() {
    let slots = open(served());
    assert!(matches!(
        slots.rollback("x"),
        Err(SlotsError::NothingBefore)
    ));
    update(&slots, NEW).unwrap();
    for pair in [OLD, NEW, OLD] {
        let number = slots.pointer().unwrap().confirmed.unwrap().number;
        let now = slots.rollback("by hand").unwrap().unwrap();
        assert!(now.number > number);
        assert_eq!(serving_pair(&slots), pair);
    }
}

#[test]
fn a_store_that_has_forgotten_whom_it_trusts_serves_and_takes_nothing() {
    let slots = open(served());
    let [first, copy] = SETTINGS.map(|name| root().join(name));
    slots.fs.write_at(&first, 0, b"[").unwrap();
    let slots = open(slots.fs);
    update(&slots, NEW).unwrap();
    slots.fs.write_at(&copy, 0, b"[").unwrap();
    let slots = open(slots.fs);
    assert_eq!(serving_pair(&slots), NEW);
    let err = update(&slots, OLD).unwrap_err();
    assert!(matches!(err, SlotsError::NotSetUp { .. }), "{err}");
    // Nor does an empty folder count as a store.
    let empty = Slots::open(Sim::new(root()), root());
    assert!(matches!(empty, Err(SlotsError::NotSetUp { .. })));
}
