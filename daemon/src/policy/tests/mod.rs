//! Tests of the decisions: each reason by example, and all of them against a naive evaluator.

mod examples;
mod reference;
mod spec;
