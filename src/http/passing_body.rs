//! A body that passes through, with something that is kept beside it: until its last frame, and to note each poll.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use hyper::body::{Frame, SizeHint};

/// What a body answered to a poll.
pub(super) type Polled = Poll<Option<Result<Frame<Bytes>, axum::Error>>>;

/// A body and what is kept beside it. `note` sees what the body answers to each poll.
pub(super) struct PassingBody<T> {
    pub body: Body,
    pub kept: T,
    pub note: fn(&T, &Polled),
}

impl<T: Unpin> hyper::body::Body for PassingBody<T> {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Polled {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        (self.note)(&self.kept, &polled);
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
