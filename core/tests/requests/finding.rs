//! A request in JSON, and by the beginning of its ID.

use anteroom_core::request::AccessRequest;
use anteroom_core::view::FindRequestError;
use time::Duration;

use crate::world::*;

#[test]
fn a_request_goes_through_json_unchanged() {
    let view = small();
    let mut wanted = wants_root_on_iot(&view);
    wanted.assume_start = Some(at(30));
    wanted.max_duration = Some(Duration::minutes(90));
    let request = approved(&view, &filed(&view, &alice(), &wanted, 1, at(0)), at(1));
    let text = serde_json::to_string(&request).unwrap();
    assert_eq!(
        serde_json::from_str::<AccessRequest>(&text).unwrap(),
        request,
        "{text}"
    );
}

#[test]
fn a_short_id_finds_one_request_of_those_that_may_be_seen() {
    let view = small();
    let request = |n| filed(&view, &alice(), &wants_root_on_iot(&view), n, at(0));
    let (a, b) = (0xab43_fc70_u128 << 96, 0xab43_0000_u128 << 96);
    let all = view.clone().with_requests([request(a), request(b)]);
    let find = |prefix: &str| all.find_request(prefix, |_| true).map(|found| found.id);
    assert_eq!(find("ab43f"), Ok(request_id(a)));
    assert_eq!(find(&request_id(b).to_string()), Ok(request_id(b)));
    assert!(matches!(
        find("ab43"),
        Err(FindRequestError::Ambiguous { count: 2, .. })
    ));
    assert!(matches!(find("ab4"), Err(FindRequestError::Malformed(_))));
    assert!(matches!(find("wxyz"), Err(FindRequestError::Malformed(_))));
    assert!(matches!(find("ffff"), Err(FindRequestError::Unknown(_))));
    let mine = all.find_request("ab43", |request| request.id == request_id(b));
    assert_eq!(mine.map(|found| found.id), Ok(request_id(b)));
}
