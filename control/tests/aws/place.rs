//! Where moto is, an independent stand-in for Amazon.

/// Its URL; `None` where none runs, which is said.
pub(crate) fn moto() -> Option<String> {
    let url = std::env::var("HEADROOM_MOTO_URL").ok().filter(|url| !url.is_empty());
    if url.is_none() {
        assert!(
            std::env::var_os("HEADROOM_REQUIRE_MOTO").is_none(),
            "HEADROOM_REQUIRE_MOTO is set and HEADROOM_MOTO_URL is not; run control/tests/aws/run"
        );
        println!("skipped: HEADROOM_MOTO_URL names no moto server; control/tests/aws/run starts one");
    }
    url
}
