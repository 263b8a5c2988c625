-- One row for each record, in the order in which they came. Times are microseconds; dates count from 1970 in UTC.
CREATE TABLE record (
    id INTEGER PRIMARY KEY,
    -- Records of one call share it.
    call INTEGER NOT NULL,
    -- call, attempt
    kind TEXT NOT NULL,
    -- Another record has this call as well: a sum over calls leaves this one out.
    nested INTEGER NOT NULL,
    -- Number of the attempt; of a call, how many there were.
    attempt INTEGER NOT NULL,
    started_us INTEGER NOT NULL,
    duration_us INTEGER NOT NULL,
    -- From the begin to the answer's head, and to the first generated content.
    head_us INTEGER,
    first_token_us INTEGER,
    -- Digests, never names or keys.
    principal INTEGER,
    key INTEGER,
    endpoint TEXT NOT NULL,
    stream INTEGER NOT NULL,
    background INTEGER NOT NULL,
    model_asked TEXT,
    model_served TEXT,
    -- The name under which it is counted.
    model TEXT,
    target TEXT,
    -- Place in the chain of a fallback.
    position INTEGER,
    status INTEGER,
    outcome TEXT,
    -- Why a layer of ours refused; then nothing was sent.
    refused TEXT,
    -- complete, partial, failed
    completion TEXT NOT NULL,
    bytes_received INTEGER NOT NULL,
    has_usage INTEGER NOT NULL,
    -- Token counts; NULL is unknown, which is not zero.
    input INTEGER,
    cached_input INTEGER,
    cache_write INTEGER,
    cache_write_1h INTEGER,
    output INTEGER,
    reasoning INTEGER,
    audio_input INTEGER,
    audio_output INTEGER,
    total INTEGER,
    estimated_output INTEGER,
    hosted_tools INTEGER NOT NULL,
    -- 10^-12 dollars; NULL is unknown, which is not zero.
    cost_pico INTEGER,
    -- Which numbers are lower bounds: bit 0 is input, in the order above, bit 9 is estimated_output, bit 10 the cost.
    bounds INTEGER NOT NULL,
    finish TEXT,
    finish_reason TEXT,
    service_tier TEXT,
    response_id TEXT
) STRICT;
CREATE INDEX record_started ON record (started_us);
CREATE INDEX record_nested ON record (call) WHERE nested;

-- The attempts of a call before the last one.
CREATE TABLE attempt (
    record INTEGER NOT NULL REFERENCES record ON DELETE CASCADE,
    number INTEGER NOT NULL,
    model TEXT,
    target TEXT,
    status INTEGER,
    outcome TEXT,
    waited_us INTEGER,
    -- stated, refill, backoff
    wait_reason TEXT,
    took_us INTEGER,
    PRIMARY KEY (record, number)
) STRICT, WITHOUT ROWID;

-- What the answers' headers said of the limits, by minute: the last limit and the least that remained.
CREATE TABLE rate_limit (
    -- Minutes since 1970.
    minute INTEGER NOT NULL,
    -- Empty where nobody named one.
    model TEXT NOT NULL,
    dimension TEXT NOT NULL,
    -- As the header's name states it ("minute", "day"); empty where it does not.
    window TEXT NOT NULL,
    units REAL,
    remaining REAL,
    -- The window as it follows from the reset, where it does.
    inferred_us INTEGER,
    answers INTEGER NOT NULL,
    PRIMARY KEY (minute, model, dimension, window)
) STRICT, WITHOUT ROWID;
