//! How a run of a job ends.

/// How a run of a job ended.
#[derive(Debug)]
pub enum Ended {
    /// The job is over.
    Finished { status: &'static str, more: bool, error: Option<String> },
    /// This process stops; another one goes on.
    ProcessStops,
    /// Another run holds the job.
    Lost,
}
