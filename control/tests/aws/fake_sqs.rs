//! SQS queues of the small Amazon: visibility, receive counts, a redrive policy.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

#[derive(Clone, Debug)]
pub(crate) struct Message {
    pub(crate) id: String,
    pub(crate) body: String,
    receipt: String,
    visible: Instant,
    pub(crate) receives: u32,
}

#[derive(Debug, Default)]
pub(crate) struct Queue {
    pub(crate) messages: Vec<Message>,
    /// After so many receives a message goes to the other queue.
    pub(crate) redrive: Option<(u32, String)>,
    pub(crate) renewals: u32,
}

/// Queues by URL.
#[derive(Debug, Default)]
pub(crate) struct Queues {
    by_url: BTreeMap<String, Queue>,
    made: u64,
}

impl Queues {
    pub(crate) fn queue(&mut self, url: &str) -> &mut Queue {
        self.by_url.entry(url.to_owned()).or_default()
    }

    pub(crate) fn send(&mut self, url: &str, body: &str) -> String {
        self.made += 1;
        let id = format!("message-{}", self.made);
        let message = Message {
            id: id.clone(),
            body: body.to_owned(),
            receipt: String::new(),
            visible: Instant::now(),
            receives: 0,
        };
        self.queue(url).messages.push(message);
        id
    }

    pub(crate) fn call(&mut self, action: &str, body: &Value) -> Value {
        let url = body["QueueUrl"].as_str().unwrap_or_default().to_owned();
        match action {
            "SendMessage" => {
                let id = self.send(&url, body["MessageBody"].as_str().unwrap_or_default());
                json!({"MessageId": id, "MD5OfMessageBody": ""})
            }
            "ReceiveMessage" => self.receive(&url, body),
            "DeleteMessage" => {
                let receipt = body["ReceiptHandle"].as_str().unwrap_or_default();
                self.queue(&url).messages.retain(|message| message.receipt != receipt);
                json!({})
            }
            "DeleteMessageBatch" => {
                for entry in body["Entries"].as_array().into_iter().flatten() {
                    let receipt = entry["ReceiptHandle"].as_str().unwrap_or_default();
                    self.queue(&url).messages.retain(|message| message.receipt != receipt);
                }
                succeeded(body)
            }
            "ChangeMessageVisibilityBatch" => {
                let queue = self.queue(&url);
                for entry in body["Entries"].as_array().into_iter().flatten() {
                    let receipt = entry["ReceiptHandle"].as_str().unwrap_or_default();
                    let seconds = entry["VisibilityTimeout"].as_u64().unwrap_or(0);
                    for message in queue.messages.iter_mut().filter(|message| message.receipt == receipt) {
                        message.visible = Instant::now() + Duration::from_secs(seconds);
                    }
                    queue.renewals += 1;
                }
                succeeded(body)
            }
            _ => json!({}),
        }
    }

    fn receive(&mut self, url: &str, body: &Value) -> Value {
        let hidden = Duration::from_secs(body["VisibilityTimeout"].as_u64().unwrap_or(30));
        let max = body["MaxNumberOfMessages"].as_u64().unwrap_or(1) as usize;
        let now = Instant::now();
        let queue = self.queue(url);
        let mut dead = Vec::new();
        if let Some((max, other)) = queue.redrive.clone() {
            let is_dead = |message: &Message| message.visible <= now && message.receives >= max;
            dead = queue.messages.iter().filter(|message| is_dead(message)).cloned().collect();
            queue.messages.retain(|message| !is_dead(message));
            if !dead.is_empty() {
                let target = self.queue(&other);
                target.messages.append(&mut dead);
            }
        }
        drop(dead);
        let mut messages = Vec::new();
        for message in self.queue(url).messages.iter_mut().filter(|message| message.visible <= now).take(max)
        {
            message.receives += 1;
            message.receipt = format!("{}#{}", message.id, message.receives);
            message.visible = now + hidden;
            messages.push(json!({
                "MessageId": message.id, "ReceiptHandle": message.receipt, "Body": message.body, "MD5OfBody": "",
            }));
        }
        json!({"Messages": messages})
    }
}

fn succeeded(body: &Value) -> Value {
    let ids = body["Entries"].as_array().into_iter().flatten().map(|entry| json!({"Id": entry["Id"]}));
    json!({"Successful": ids.collect::<Vec<_>>(), "Failed": []})
}
