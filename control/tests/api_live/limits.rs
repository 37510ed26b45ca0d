//! Limits on connections.

use control::api::Limits;

use crate::client::Client;
use crate::house::{House, Plan};

#[tokio::test(flavor = "multi_thread")]
async fn connections_above_the_limit_are_told_so() {
    let limits = Limits { connections_max: 2, ..Limits::default() };
    let house = House::with(Plan { limits, ..Plan::default() }).await;
    let (mut first, mut second) = (house.client().await, house.client().await);
    assert_eq!(first.get("/livez").await.status, 200);
    assert_eq!(second.get("/livez").await.status, 200);
    let mut third = house.client().await;
    third.reply("GET").await.is_problem(503, "connections");
    drop(first);
    for _ in 0..600 {
        let mut client = Client::connect(house.address).await;
        client.send("GET", "/livez", &[], "").await;
        if client.reply("GET").await.status == 200 {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("a place that is free again stays taken");
}
