//! The same suite against moto, an independent stand-in for Amazon.

use aws_sdk_ec2::types::RequestLaunchTemplateData;

use super::place::moto;
use super::setup::{SOON, ec2};
use super::suite::{Server, everything, spot_prices};
use super::{ingress, warnings};

#[tokio::test(flavor = "multi_thread")]
async fn moto_and_the_provider_agree() {
    let Some(url) = moto() else { return };
    let client = ec2(&url, SOON).await;
    let images = client.describe_images().owners("amazon").send().await.expect("images");
    let image = images.images()[0].image_id().expect("an id").to_owned();
    let subnets = client.describe_subnets().send().await.expect("subnets");
    let subnets = subnets.subnets().iter().take(2).filter_map(|one| one.subnet_id().map(str::to_owned));
    let name = format!("headroom-{}", super::setup::token(0));
    let data = RequestLaunchTemplateData::builder().image_id(&image).build();
    let made = client.create_launch_template().launch_template_name(&name).launch_template_data(data);
    let made = made.send().await.expect("a launch template");
    let id = made.launch_template().and_then(|one| one.launch_template_id()).expect("an id").to_owned();
    let subnets: Vec<String> = subnets.collect();
    for (template, subnets) in [(id, subnets), (name, Vec::new())] {
        let server = Server { url: url.clone(), template, subnets, image: image.clone(), lag_ms: 300 };
        everything(&server).await;
    }
    // moto's are all 0.00001 USD, of 2006: they can be read, no more.
    assert!(spot_prices(&url).await > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn moto_and_the_queues_agree() {
    let Some(url) = moto() else { return };
    let client = super::setup::sqs(&url).await;
    let made = async |name: &str, redrive: Option<String>| {
        let request = client.create_queue().queue_name(format!("{name}-{}", super::setup::token(0)));
        let request = match redrive {
            Some(policy) => request.attributes(aws_sdk_sqs::types::QueueAttributeName::RedrivePolicy, policy),
            None => request,
        };
        request.send().await.expect("a queue").queue_url().expect("its URL").to_owned()
    };
    let dead = made("dead", None).await;
    let attributes = client.get_queue_attributes().queue_url(&dead);
    let attributes =
        attributes.attribute_names(aws_sdk_sqs::types::QueueAttributeName::QueueArn).send().await;
    let attributes = attributes.expect("attributes");
    let arn = attributes
        .attributes()
        .and_then(|all| all.get(&aws_sdk_sqs::types::QueueAttributeName::QueueArn))
        .expect("its name");
    let policy = format!(r#"{{"deadLetterTargetArn":"{arn}","maxReceiveCount":"2"}}"#);
    let (jobs, results) = (made("jobs", Some(policy)).await, made("results", None).await);
    ingress::everything(&client, &jobs, &results, &dead).await;
    warnings::everything(&client, &url, &made("warnings", None).await).await;
}
