//! Reads everything back through the public API, and compares.
//!
//! Before a device is read, a marker is published for it; the query waits until the marker's position can be read. So
//! "zero lag" is the system's own promise (read your own write), not a pause. Two other ways of reading must agree with the
//! range query: the count by `Aggregate`, and `Latest`. Another tenant's token must see nothing.

use std::{collections::HashMap, time::Duration};

use futures::{StreamExt as _, stream};
use tokio::time::Instant;
use weir_core::{Error, ErrorKind, Result, Timestamp, Value, name};
use weir_grpc::{convert, from_status, status::from_item};
use weir_proto::{
    ingest::v1::PublishRequest,
    storage::v1::{AggregateRequest, DeviceFilter, Function, LatestRequest, Point, QueryRequest},
};

use super::{Account, Check, Ledger, Source, Verdict};
use crate::{Place, edge::as_proto, lane::patiently};

/// Devices that are read at the same time: enough to keep a store busy, few enough not to be its overload.
const READERS: usize = 8;
/// Whoever comes late still tries for so long.
const MOMENT: Duration = Duration::from_secs(5);

/// Reads back every account of a ledger. `places` holds the place of each tenant, by its number in the run.
///
/// # Errors
/// What still fails after `patience` in which nothing more became readable: then nothing can be said.
pub async fn all(ledger: &Ledger, places: &[Place], patience: Duration) -> Result<Verdict> {
    let until = Instant::now() + patience;
    let tenants: Vec<u32> = (0..places.len()).filter_map(|tenant| u32::try_from(tenant).ok()).collect();
    let verdicts: Vec<Result<Verdict>> = stream::iter(ledger.accounts())
        .map(|account| {
            let source = account.source();
            let rivals: Vec<Source> = tenants
                .iter()
                .filter(|tenant| **tenant != source.tenant)
                .map(|tenant| Source { tenant: *tenant, ..source })
                .collect();
            async move {
                let place = places
                    .get(source.tenant as usize)
                    .ok_or_else(|| Error::internal("an account of a tenant that is none of the run's"))?;
                let mut verdict = device(place, account, &rivals, (until, patience)).await?;
                for (other, stranger) in places.iter().enumerate() {
                    if other != source.tenant as usize {
                        let points =
                            patiently(left(until), async || leaks(place, stranger, account).await).await?;
                        verdict.leaked += points;
                    }
                }
                Ok(verdict)
            }
        })
        .buffer_unordered(READERS)
        .collect()
        .await;
    let mut all = Verdict::default();
    for verdict in verdicts {
        all.add(verdict?);
    }
    Ok(all)
}

/// What is left until an instant, and a moment for those who come late.
fn left(until: Instant) -> Duration {
    until.saturating_duration_since(Instant::now()).max(MOMENT)
}

/// Reads back one account. A marker that is acknowledged and cannot be read by `until`, nor later while ever more of the device
/// becomes readable within `patience`, is lost itself, and its device is not healed; then the rest is read as it is.
///
/// # Errors
/// As [`all`].
async fn device(
    place: &Place,
    account: &Account,
    rivals: &[Source],
    (mut until, patience): (Instant, Duration),
) -> Result<Verdict> {
    let (mut position, mut unhealed) = (Vec::new(), None);
    match patiently(left(until), async || publish_marker(place, account).await).await {
        Ok(marker) => position.push(marker),
        Err(error) => {
            unhealed = Some(format!("device {}: nothing is accepted any more: {error}", account.device()))
        }
    }
    let waited = catch_up(place, account, &position, (&mut until, patience)).await;
    let never =
        waited.err().map(|error| format!("device {}: its marker cannot be read: {error}", account.device()));
    if never.is_some() {
        position.clear();
    }
    let mut check = Check::new(account, rivals);
    let mut cursor = String::new();
    let reading = async || read(place, account, &position, &mut cursor, &mut check).await;
    patiently(left(until), reading).await?;
    let (mut verdict, newest) = check.finish();
    if let Some(unhealed) = unhealed {
        verdict.unhealed += 1;
        verdict.example(unhealed);
    }
    if let Some(never) = never {
        verdict.lost += 1;
        verdict.unhealed += 1;
        verdict.example(never);
    }
    let count = patiently(left(until), async || count(place, account, &position).await).await?;
    let distinct = verdict.found;
    if count != distinct {
        verdict.lost += distinct.saturating_sub(count);
        verdict.duplicated += count.saturating_sub(distinct);
        verdict.example(format!(
            "device {}: the aggregate counts {count} readings, the range query gives {distinct}",
            account.device()
        ));
    }
    let latest = patiently(left(until), async || latest(place, account, &position).await).await?;
    if latest != newest {
        verdict.corrupt += 1;
        verdict.example(format!(
            "device {}: the latest is {latest:?}, the newest found {newest:?}",
            account.device()
        ));
    }
    Ok(verdict)
}

/// Waits until everything up to `position` can be read: until `until`, and on while the newest that can be read is newer than
/// before at the end of each further `patience`. A backlog is no loss as long as it shrinks.
async fn catch_up(
    place: &Place,
    account: &Account,
    position: &[String],
    (until, patience): (&mut Instant, Duration),
) -> Result<()> {
    let mut newest = None;
    loop {
        // One call may wait for long by itself.
        let waiting = patiently(left(*until), async || latest(place, account, position).await);
        let late = |_| Err(Error::unavailable("it is not readable in time"));
        let Err(error) = tokio::time::timeout(left(*until), waiting).await.unwrap_or_else(late) else {
            return Ok(());
        };
        *until = Instant::now() + patience;
        let now = patiently(patience, async || latest(place, account, &[]).await).await?;
        if now <= newest {
            return Err(error);
        }
        newest = now;
    }
}

/// Publishes the marker; its position.
async fn publish_marker(place: &Place, account: &Account) -> Result<String> {
    let request = PublishRequest {
        device: name::child(&place.tenant, "devices", account.device()),
        readings: vec![as_proto(&account.marker())],
        ..Default::default()
    };
    let answer = place.connection.ingest().publish(request).await.map_err(from_status)?.into_inner();
    answer.statuses.iter().try_for_each(from_item)?;
    Ok(answer.position)
}

fn filter(account: &Account) -> DeviceFilter {
    DeviceFilter { devices: vec![account.device().to_owned()], label_selector: String::new() }
}

/// Streams the device's points into the check; after a failure it goes on after the last cursor.
async fn read(
    place: &Place,
    account: &Account,
    position: &[String],
    cursor: &mut String,
    check: &mut Check<'_>,
) -> Result<()> {
    let request = QueryRequest {
        parent: name::tenant(&place.tenant),
        filter: Some(filter(account)),
        resume_cursor: cursor.clone(),
        min_positions: position.to_vec(),
        ..Default::default()
    };
    let mut answers = place.connection.telemetry().query(request).await.map_err(from_status)?.into_inner();
    while let Some(answer) = answers.message().await.map_err(from_status)? {
        for point in answer.points {
            let (ts, metric, value) = open(point)?;
            check.point(ts, &metric, value);
        }
        *cursor = answer.cursor;
    }
    Ok(())
}

fn open(point: Point) -> Result<(Timestamp, String, Value)> {
    let ts = point.ts.ok_or_else(|| Error::data_loss("a point without a time"))?;
    let value = point.value.ok_or_else(|| Error::data_loss("a point without a value"))?;
    Ok((convert::to_timestamp("ts", &ts)?, point.metric, convert::to_value(value)?))
}

/// How many readings the aggregate counts.
async fn count(place: &Place, account: &Account, position: &[String]) -> Result<u64> {
    let source = account.source();
    let end = source.ts(account.epoch(), u32::try_from(account.entries().len()).unwrap_or(u32::MAX));
    let request = AggregateRequest {
        parent: name::tenant(&place.tenant),
        filter: Some(filter(account)),
        metrics: vec!["s".to_owned()], // every reading has it
        start_time: Some(convert::from_timestamp(account.epoch())),
        end_time: Some(convert::from_timestamp(end.saturating_add(Duration::from_secs(1)))),
        functions: vec![Function::Count.into()],
        min_positions: position.to_vec(),
        ..Default::default()
    };
    let mut answers =
        place.connection.telemetry().aggregate(request).await.map_err(from_status)?.into_inner();
    let mut sum = 0;
    while let Some(answer) = answers.message().await.map_err(from_status)? {
        for value in answer.rows.into_iter().flat_map(|row| row.values) {
            sum += match convert::to_value(value)? {
                Value::Int64(count) => u64::try_from(count).unwrap_or(0),
                Value::Double(count) => count as u64,
                _ => 0,
            };
        }
    }
    Ok(sum)
}

/// The newest event time by `Latest`.
async fn latest(place: &Place, account: &Account, position: &[String]) -> Result<Option<Timestamp>> {
    let request = LatestRequest {
        parent: name::tenant(&place.tenant),
        filter: Some(filter(account)),
        min_positions: position.to_vec(),
        ..Default::default()
    };
    let answer = place.connection.telemetry().latest(request).await.map_err(from_status)?.into_inner();
    let times = answer.points.into_iter().map(open).collect::<Result<Vec<_>>>()?;
    Ok(times.into_iter().map(|(ts, ..)| ts).max())
}

/// How many points of a device another tenant's token is given: none, for it must be refused.
async fn leaks(place: &Place, stranger: &Place, account: &Account) -> Result<u64> {
    let request = QueryRequest {
        parent: name::tenant(&place.tenant),
        filter: Some(filter(account)),
        limit: 10, // one is too many
        ..Default::default()
    };
    let refused = |error: Error| match error.kind() {
        ErrorKind::PermissionDenied | ErrorKind::NotFound => Ok(0),
        _ => Err(error),
    };
    match stranger.connection.telemetry().query(request).await.map_err(from_status) {
        Err(error) => refused(error),
        Ok(answers) => {
            let mut answers = answers.into_inner();
            let mut points = 0;
            loop {
                match answers.message().await.map_err(from_status) {
                    Ok(Some(answer)) => points += answer.points.len() as u64,
                    Ok(None) => return Ok(points),
                    Err(error) => return refused(error).map(|none| none + points),
                }
            }
        }
    }
}

/// Labels of devices that a run makes, to tell them apart from those of people.
pub fn labels(run: u64) -> HashMap<String, String> {
    HashMap::from([("weir-run".to_owned(), format!("{run:x}"))])
}
