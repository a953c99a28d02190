//! Copies records of the log into the store, insert-if-absent: doing it twice does nothing.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use weir_core::{
    ErrorKind, Partition, Position, Result, Stream, Uid,
    command::{Command, DeviceKey, Request},
    json,
    port::{Record, Signal, Table, Write},
};

use crate::{
    Service,
    machine::Held,
    send::queued,
    store::{
        DEVICES, Entry, NAMES, OPEN, Pending, TENANTS, TIMERS, TO, Timer, command_key, day_of, day_place,
        device_place, listed_key, name_place, pending_key, position_key, timer_key, timer_place,
    },
};

/// Commits under way at once: an engine syncs them together.
const WIDTH: usize = 64;
/// Writes in one commit; a port takes 1,000.
const WRITES_MAX: usize = 500;

impl Service {
    /// Copies what the store does not have yet, tells those who wait, and rings for the devices.
    pub(crate) async fn copy(&self, partition: Partition, records: &[Record]) -> Result<()> {
        let commands = self.decode(partition, records);
        let mut checks = Vec::with_capacity(commands.len());
        for command in commands {
            checks.push(self.check_known(command));
        }
        let checked: Vec<_> = stream::iter(checks).buffered(WIDTH).try_collect().await?;
        let (known, mut new): (Vec<_>, Vec<_>) = checked.into_iter().partition(|(_, known)| *known);
        let mut seen = HashMap::new();
        new.retain(|(command, _)| seen.insert(command.request.id, ()).is_none());
        let new: Vec<Command> = new.into_iter().map(|(command, _)| command).collect();
        self.write_indexes(partition, &new).await?;
        self.write_commands(&new).await?;
        for (command, _) in known {
            self.backlog.leave(command.request.to.uid, command.request.id);
            // A former owner may have written it a moment ago, after this one's first look at the timers.
            self.timers.lower(partition, command.request.expires_at);
        }
        self.announce(partition, new).await;
        Ok(())
    }

    async fn check_known(&self, command: Command) -> Result<(Command, bool)> {
        let known = self.store.command(&command.request.to, command.request.id).await?.is_some();
        Ok((command, known))
    }

    fn decode(&self, partition: Partition, records: &[Record]) -> Vec<Command> {
        let now = self.clock.now();
        let mut commands = Vec::with_capacity(records.len());
        for record in records {
            let request: Request = match serde_json::from_slice(&record.bytes) {
                Ok(request) => request,
                Err(error) => {
                    self.metrics.undecodable.inc();
                    tracing::error!(sequence = record.sequence, %error, "a record of stream commands is no command");
                    continue;
                }
            };
            // A log that is read again after its progress was lost must not bring back what was removed.
            if now >= request.expires_at.saturating_add(self.config.retention) {
                continue;
            }
            let sequence = record.sequence;
            let generation = self.marks.generation_of(sequence);
            let position = Position { stream: Stream::Commands, generation, sequence, index: 0, partition };
            commands.push(queued(request, position));
        }
        commands
    }

    /// Everything that leads to a command is there before it.
    async fn write_indexes(&self, partition: Partition, commands: &[Command]) -> Result<()> {
        let mut places: BTreeMap<(Table, Bytes), Vec<Write>> = BTreeMap::new();
        for command in commands {
            let (request, entry) = (&command.request, Entry::of(command));
            let value = json::to_bytes(&entry)?;
            let (tenant, position) = (&request.to.tenant, position_key(command.position));
            let due = request.expires_at;
            let timer = Timer { entry, due, remove: false };
            let tenant_place = Bytes::copy_from_slice(tenant.as_str().as_bytes());
            for (table, place, write) in [
                (NAMES, name_place(tenant, request.id), Write::put(TO, json::to_bytes(&request.to)?)),
                (
                    TENANTS,
                    day_place(tenant, day_of(request.created_at)),
                    Write::put(position.clone(), value.clone()),
                ),
                (OPEN, tenant_place, Write::put(position, value)),
                (
                    TIMERS,
                    timer_place(partition),
                    Write::put(timer_key(due, request.id), json::to_bytes(&timer)?),
                ),
            ] {
                places.entry((table, place)).or_default().push(write);
            }
        }
        let mut commits = Vec::with_capacity(places.len());
        for ((table, place), writes) in &places {
            for chunk in writes.chunks(WRITES_MAX) {
                commits.push(self.store.commit(*table, place, chunk.to_vec()));
            }
        }
        stream::iter(commits).buffer_unordered(WIDTH).try_collect::<Vec<()>>().await?;
        Ok(())
    }

    /// The commands themselves: devices side by side, those of one device in order.
    async fn write_commands(&self, commands: &[Command]) -> Result<()> {
        let mut devices: HashMap<&DeviceKey, Vec<&Command>> = HashMap::new();
        for command in commands {
            devices.entry(&command.request.to).or_default().push(command);
        }
        let mut inserts = Vec::with_capacity(devices.len());
        for commands in devices.into_values() {
            inserts.push(self.insert_all(commands));
        }
        stream::iter(inserts).buffer_unordered(WIDTH).try_collect::<Vec<()>>().await?;
        Ok(())
    }

    async fn insert_all(&self, commands: Vec<&Command>) -> Result<()> {
        for group in groups(&commands) {
            self.insert(group).await?;
        }
        Ok(())
    }

    /// Inserts commands of one device together, or, where one of them is there already (somebody else owned the partition
    /// a moment ago), each alone.
    async fn insert(&self, commands: &[&Command]) -> Result<()> {
        let Some(first) = commands.first() else { return Ok(()) };
        let mut writes = Vec::with_capacity(3 * commands.len());
        for command in commands {
            writes.extend(insertion(command)?);
        }
        let place = device_place(&first.request.to);
        match self.store.commit(DEVICES, &place, writes).await {
            Err(error) if error.kind() == ErrorKind::Aborted => {}
            done => return done,
        }
        for command in commands {
            match self.store.commit(DEVICES, &place, insertion(command)?.to_vec()).await {
                Err(error) if error.kind() == ErrorKind::Aborted => {}
                done => done?,
            }
        }
        Ok(())
    }

    async fn announce(&self, partition: Partition, commands: Vec<Command>) {
        let mut rung: HashMap<Uid, DeviceKey> = HashMap::new();
        for command in commands {
            let request = command.request;
            self.backlog.leave(request.to.uid, request.id);
            self.timers.lower(partition, request.expires_at);
            self.metrics.queued();
            self.tell(&request.to, request.id).await;
            rung.insert(request.to.uid, request.to);
        }
        for to in rung.into_values() {
            self.ring(&to).await;
        }
    }

    /// Tells whoever waits for a change of the command, on whatever replica.
    pub(crate) async fn tell(&self, to: &DeviceKey, id: Uid) {
        self.signals.publish(Signal::CommandChanged { to: to.clone(), id }).await;
    }

    /// Tells whoever serves the device to look at its queue.
    pub(crate) async fn ring(&self, to: &DeviceKey) {
        self.signals.publish(Signal::CommandWaiting { tenant: to.tenant.clone(), uid: to.uid }).await;
    }
}

/// Commands that fit into one commit: a port takes 1 MiB of values, and JSON in JSON is at most twice as long.
fn groups<'a, 'b>(commands: &'b [&'a Command]) -> impl Iterator<Item = &'b [&'a Command]> {
    const COUNT_MAX: usize = 64;
    const BYTES_MAX: usize = 256 * 1024;
    let mut rest = commands;
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fits = |command: &&&Command| {
            bytes += command.request.payload.len();
            bytes <= BYTES_MAX
        };
        let count = rest.iter().take(COUNT_MAX).take_while(fits).count().max(1).min(rest.len());
        let (group, after) = rest.split_at_checked(count)?;
        rest = after;
        (!group.is_empty()).then_some(group)
    })
}

fn insertion(command: &Command) -> Result<[Write; 3]> {
    let held = Held { command: command.clone(), offer: None };
    Ok([
        Write::insert(command_key(command.request.id), json::to_bytes(command)?),
        Write::put(pending_key(command.position), json::to_bytes(&Pending::of(&held))?),
        Write::put(listed_key(command.position), json::to_bytes(&Entry::of(command))?),
    ])
}
