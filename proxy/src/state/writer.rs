//! The one writer: decides on fresh data, writes, commits, and only then lets anybody know.
//!
//! Everybody who wants something written sends a job. The writer takes the jobs that wait, opens
//! one transaction for all of them, reads the clock once, runs them one after the other on a
//! [`Draft`] of the view, writes what they wrote, and commits. So the `fdatasync` that a commit
//! costs is paid once for everybody who waits, and a job sees what the jobs before it did.
//!
//! A job's caller may go away at any moment; the job is done all the same, and memory never
//! differs from the disk.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration as StdDuration;

use anteroom_core::id::ClusterName;
use anteroom_core::view::{Settings, View};
use time::OffsetDateTime;
use tokio::sync::mpsc;

use super::Shared;
use super::draft::memory::Memory;
use super::draft::{Draft, News};
use super::job::Job;
use super::monitoring::review_pending_by_rules;
use crate::audit::{Entry, Event};
use crate::store::{SessionEnd, Store, StoreError, Transaction};

/// Jobs in one transaction. Beyond some dozens the disk's share of the cost is nothing any more,
/// and the first in the group should not wait for many signatures.
const GROUP: usize = 64;

/// Jobs that may wait. More wait at their own sender, one per connection, in order.
pub(super) const QUEUE: usize = 256;

/// How long the writer waits before it tries again to write what time alone changed, after the
/// store failed. Nothing depends on it: a decision looks at the time itself.
pub(super) const RETRY: StdDuration = StdDuration::from_secs(1);

/// The writer.
pub(super) struct Writer {
    store: Store,
    memory: Memory,
    shared: Arc<Shared>,
    jobs: mpsc::Receiver<Message>,
}

/// What the writer is told.
pub(super) enum Message {
    /// Write this.
    Job(Box<dyn Job>),
    /// Write what was sent before, close the database, and take no more.
    Stop,
}

/// Whether the writer goes on after a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    GoOn,
    Stop,
}

impl Writer {
    /// Reads everything, and writes what the start of a proxy writes.
    pub(super) async fn start(
        mut store: Store,
        cluster: ClusterName,
        settings: Settings,
        now: OffsetDateTime,
        first_words: impl FnOnce(&mut Draft),
    ) -> Result<(Store, Started), StoreError> {
        let mut transaction = store.begin().await?;
        match transaction.meta("cluster").await? {
            Some(known) if known == cluster.as_str() => {}
            Some(known) => {
                tracing::warn!(%known, %cluster, "the cluster was renamed; what was granted under the old name no longer counts");
                transaction.set_meta("cluster", cluster.as_str()).await?;
            }
            None => transaction.set_meta("cluster", cluster.as_str()).await?,
        }
        if !transaction.log_ends_at_its_head().await? {
            tracing::error!("the audit log does not end as it did; run `audit verify`");
        }
        let memory = Memory::of(transaction.load(now).await?, cluster.clone(), settings, now);
        let mut draft = memory.draft(now, Arc::default());
        for session in transaction.unended_sessions().await? {
            let Ok(id) = session.id.parse() else { continue };
            let entry = Entry::new(Event::SessionEnd)
                .user(&session.user)
                .node_id(&session.node_id)
                .login(&session.login)
                .session_id(&session.id)
                .reason("the proxy stopped");
            draft.end_session(SessionEnd { id, at: None }, entry);
        }
        first_words(&mut draft);
        draft.let_time_pass(memory.due(now));
        if memory.is_opening(now) {
            review_pending_by_rules(&mut draft);
        }
        let mut memory = memory;
        write(transaction, &draft, &cluster).await?;
        memory.accept(draft);
        Ok((store, Started(memory)))
    }

    pub(super) fn new(
        store: Store,
        started: Started,
        shared: Arc<Shared>,
        jobs: mpsc::Receiver<Message>,
    ) -> Self {
        Self {
            store,
            memory: started.0,
            shared,
            jobs,
        }
    }

    /// Works until it is told to stop, or nobody is left who could send a job.
    pub(super) async fn run(mut self) {
        let mut failed = false;
        loop {
            let (mut group, next) = self.gather(failed).await;
            let committed = self.commit(&mut group).await;
            failed = committed.is_err();
            self.shared.failing.store(failed, Ordering::Relaxed);
            if let Err(error) = &committed {
                tracing::error!(%error, "the store failed; new access is refused until it is back");
                // Whoever watches looks at the time, too: what has ended ends without the store.
                if !self.memory.due(self.shared.clock.now()).is_empty() {
                    self.shared.changes.send_modify(|count| *count += 1);
                }
            }
            for job in group {
                job.reply(committed.clone());
            }
            match next {
                Next::GoOn => {}
                Next::Stop => break,
            }
        }
        self.jobs.close();
        while let Some(message) = self.jobs.recv().await {
            match message {
                Message::Job(job) => job.reply(Err(StoreError::Stopped)),
                Message::Stop => {}
            }
        }
        self.store.close().await;
    }

    /// Waits for a job or for the next instant at which time alone changes something, then takes
    /// whatever else is there.
    async fn gather(&mut self, failed: bool) -> (Vec<Box<dyn Job>>, Next) {
        let clock = Arc::clone(&self.shared.clock);
        let request = self.memory.deadlines.first().map(|(at, _)| *at);
        let lock = self.memory.view.locks().next_end();
        let allowance = self.memory.view.next_end_of_allowance();
        let shift = self.memory.opening;
        let token = self.memory.view.next_end_of_token();
        let deadlines = [request, lock, allowance, token, shift];
        let deadline = deadlines.into_iter().flatten().min();
        let time = async {
            match deadline {
                Some(at) => {
                    if failed {
                        tokio::time::sleep(RETRY).await;
                    }
                    clock.sleep_until(at).await;
                }
                None => std::future::pending().await,
            }
        };
        let mut group = Vec::new();
        tokio::select! {
            message = self.jobs.recv() => match message {
                Some(Message::Job(job)) => group.push(job),
                Some(Message::Stop) | None => return (group, Next::Stop),
            },
            () = time => {}
        }
        while group.len() < GROUP
            && let Ok(message) = self.jobs.try_recv()
        {
            match message {
                Message::Job(job) => group.push(job),
                Message::Stop => return (group, Next::Stop),
            }
        }
        (group, Next::GoOn)
    }

    /// One transaction for the whole group: persist, then speak.
    async fn commit(&mut self, group: &mut [Box<dyn Job>]) -> Result<(), StoreError> {
        let mut transaction = self.store.begin().await?;
        let now = self.shared.clock.now();
        let mut news = News::Nothing;
        if transaction.changed_elsewhere() {
            let view = &self.memory.view;
            let (cluster, settings) = (view.cluster().clone(), view.settings().clone());
            let authorities = self.memory.authorities.clone();
            self.memory = Memory::of(transaction.load(now).await?, cluster, settings, now);
            // The keys are this process's: what somebody else writes changes nothing of them.
            self.memory.authorities = authorities;
            news = News::Look;
        }
        let mut draft = self.memory.draft(now, Arc::clone(&self.shared.addresses));
        draft.let_time_pass(self.memory.due(now));
        if self.memory.is_opening(now) {
            review_pending_by_rules(&mut draft);
        }
        for job in group {
            draft.run(job.as_mut());
        }
        write(transaction, &draft, &self.shared.cluster).await?;
        if draft.news == News::Look {
            news = News::Look;
        }
        self.memory.accept(draft);
        self.publish(news);
        Ok(())
    }

    fn publish(&self, news: News) {
        self.shared
            .authorities
            .store(self.memory.authorities.clone());
        match news {
            News::Nothing => {}
            News::Look => {
                // The view first: whoever is woken must find it.
                self.shared.view.store(Arc::new(self.memory.view.clone()));
                self.shared.changes.send_modify(|count| *count += 1);
            }
        }
    }
}

/// What a start has read, before there is anybody to share it with.
#[derive(Debug)]
pub(super) struct Started(Memory);

impl Started {
    pub(super) fn view(&self) -> View {
        self.0.view.clone()
    }
}

async fn write(
    mut transaction: Transaction<'_>,
    draft: &Draft,
    cluster: &ClusterName,
) -> Result<(), StoreError> {
    if draft.changes.is_empty() {
        return transaction.rollback().await;
    }
    for change in &draft.changes {
        transaction
            .write(change, cluster.as_str(), draft.now())
            .await?;
    }
    transaction.commit().await
}
