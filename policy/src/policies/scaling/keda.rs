//! KEDA on the length of a queue: an operator between 0 and 1, a Horizontal Pod Autoscaler from 1 on.

use super::behavior::HpaBehavior;
use super::{Observation, ScalingPolicy, Target};
use crate::policies::Reason;
use crate::units::{Duration, Instant};

/// Parameters of a KEDA `ScaledObject` with an `aws-sqs-queue` trigger.
#[derive(Clone, Debug, PartialEq)]
pub struct Keda {
    /// Jobs per instance to aim at (`queueLength`, > 0).
    pub queue_length: f64,
    /// Whether running jobs count beside the waiting ones (`scaleOnInFlight`).
    pub running_counts: bool,
    /// Jobs above which a group of zero is woken (`activationQueueLength`).
    pub activation: f64,
    /// Time between two looks of the operator, which moves between 0 and 1 only (`pollingInterval`).
    pub polling: Duration,
    /// Time without activity after which the last instance goes (`cooldownPeriod`).
    pub cooldown: Duration,
    /// The same, after the start of the run when there was never any activity (`initialCooldownPeriod`).
    pub initial_cooldown: Duration,
    /// Fewest instances (`minReplicaCount`), beside the pools' own minima.
    pub replicas_min: u32,
    /// Most instances (`maxReplicaCount`), beside the pools' own maxima.
    pub replicas_max: u32,
    /// Time between two looks of the Horizontal Pod Autoscaler, which moves between 1 and N.
    pub period: Duration,
    /// How fast the count may move between 1 and N.
    pub behavior: HpaBehavior,
}
