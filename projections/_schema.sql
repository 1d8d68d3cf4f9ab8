-- The log and everything around it. Read models are not here: each brings its own table (see customer_sites.py),
-- because they are rebuilt from the log, never migrated.
--
-- What an index holds is an id, not a word. COLLATE "C" compares its bytes: in the order of a language the same costs
-- Postgres half as much again, and a newer C library may order the same letters otherwise and break the index.

CREATE SCHEMA IF NOT EXISTS sitelog;
CREATE SCHEMA IF NOT EXISTS integration;

-- One row: the version of this file that the database has.
CREATE TABLE sitelog.schema_version (
    only_row    boolean PRIMARY KEY DEFAULT TRUE CHECK (only_row),
    version     integer NOT NULL,
    changed_at  timestamptz NOT NULL DEFAULT now()
);

-- (topic, partition) as a small number: it stands in every row of the log and in its key.
CREATE TABLE sitelog.log_partition (
    log_partition  smallint PRIMARY KEY,
    topic          text COLLATE "C" NOT NULL,
    partition      integer NOT NULL,
    UNIQUE (topic, partition)
);

-- Every writer schema that the log holds payloads of: the log can be read without any registry.
CREATE TABLE sitelog.avro_schema (
    fingerprint  bigint PRIMARY KEY,  -- CRC-64-AVRO of the canonical form
    name         text NOT NULL,
    version      text NOT NULL,
    schema       jsonb NOT NULL
);

-- The permanent record: what was applied, in the order in which it was applied.
CREATE TABLE sitelog.event_log (
    log_partition       smallint NOT NULL,
    log_seq             bigint NOT NULL,         -- 1, 2, 3 … within the log partition, without a hole
    kafka_offset        bigint NOT NULL,
    event_id            uuid NOT NULL,
    event_type          text NOT NULL,
    entity_id           text COLLATE "C" NOT NULL,
    event_time          timestamptz NOT NULL,    -- when it happened, as its producer says
    append_time         timestamptz NOT NULL,    -- when it was appended, as Kafka says
    ingest_time         timestamptz NOT NULL,    -- when it was applied
    schema_fingerprint  bigint NOT NULL,
    headers             json,                    -- [[name, base64], …]
    payload             bytea NOT NULL,          -- Avro, without framing
    PRIMARY KEY (log_partition, log_seq),
    -- an event sent twice is applied once
    CONSTRAINT event_log_event_id_key UNIQUE (event_id)
);

CREATE INDEX event_log_entity_id_idx ON sitelog.event_log (entity_id, log_seq);

CREATE FUNCTION sitelog.refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'sitelog.event_log is append-only: % refused', TG_OP;
END;
$$;

CREATE TRIGGER event_log_append_only
    BEFORE UPDATE OR DELETE OR TRUNCATE ON sitelog.event_log
    FOR EACH STATEMENT EXECUTE FUNCTION sitelog.refuse_change();

-- Where each consumer stands; the only truth of positions. Kafka's committed offset is a hint for tools.
CREATE TABLE sitelog.consumer_position (
    consumer         text COLLATE "C" NOT NULL,
    log_partition    smallint NOT NULL REFERENCES sitelog.log_partition,
    next_offset      bigint NOT NULL,
    log_seq          bigint NOT NULL,            -- of the last event that it wrote to the log
    epoch            bigint NOT NULL,            -- raised by every claim: an older one may write nothing more
    generation       bigint NOT NULL,            -- of the Kafka group at the claim
    owner            text NOT NULL,
    read_models      text[] NOT NULL DEFAULT '{}', -- tables that whoever claimed it keeps in step with the log
    anchor           bigint,                     -- CRC-32 of the value of the record at next_offset - 1
    parked_entities  integer NOT NULL DEFAULT 0, -- > 0: look which entities are stopped before applying anything
    last_event_time  timestamptz,
    updated_at       timestamptz NOT NULL,
    PRIMARY KEY (consumer, log_partition)
) WITH (fillfactor = 50);

-- Who moved a position by hand, and why: `sitelog position set`. What lies between was skipped, or read again.
CREATE TABLE sitelog.position_change (
    change_id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    consumer       text NOT NULL,
    log_partition  smallint NOT NULL REFERENCES sitelog.log_partition,
    from_offset    bigint,                       -- null where nobody had claimed the partition yet
    to_offset      bigint NOT NULL,
    changed_at     timestamptz NOT NULL,
    changed_by     text NOT NULL,
    reason         text NOT NULL
);

-- Up to where a replay has built a read model. From there on those keep it whose positions name it.
CREATE TABLE sitelog.read_model (
    read_model     text COLLATE "C" NOT NULL,    -- its table: another version is another read model
    log_partition  smallint NOT NULL REFERENCES sitelog.log_partition,
    log_seq        bigint NOT NULL,
    built_at       timestamptz NOT NULL,
    PRIMARY KEY (read_model, log_partition)
);

-- What could not be applied, whole. It enters the log when it is applied, and stays here as a record of that.
CREATE TABLE sitelog.parked_event (
    parked_id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    consumer       text COLLATE "C" NOT NULL,
    log_partition  smallint NOT NULL REFERENCES sitelog.log_partition,
    kafka_offset   bigint NOT NULL,
    entity_id      text COLLATE "C" NOT NULL,    -- '' where neither key nor id could be read: stops nobody
    status         text NOT NULL CHECK (status IN ('parked', 'waiting', 'behind', 'applied', 'discarded')),
    reason         text NOT NULL,
    message        text NOT NULL,
    key            bytea,
    value          bytea,
    headers        json,
    append_time    timestamptz NOT NULL,
    parked_at      timestamptz NOT NULL,
    closed_at      timestamptz,
    closed_by      text,
    close_reason   text,                         -- why a person discarded it
    -- a record that is read again is put aside once; a topic that was created again has other times
    CONSTRAINT parked_event_record_key UNIQUE (consumer, log_partition, kafka_offset, append_time)
);

CREATE INDEX parked_event_open_idx ON sitelog.parked_event (consumer, log_partition, entity_id, kafka_offset)
    WHERE closed_at IS NULL;

-- Updates that met a row which wasn't as their producer had seen it, field by field.
CREATE TABLE sitelog.conflict (
    log_partition  smallint NOT NULL,
    log_seq        bigint NOT NULL,
    projection     text COLLATE "C" NOT NULL,
    entity_id      text COLLATE "C" NOT NULL,
    event_id       uuid NOT NULL,
    field          text COLLATE "C" NOT NULL,
    reason         text NOT NULL CHECK (reason IN ('old_value', 'version', 'deleted', 'exists')),
    expected       text,
    found          text,
    resolution     text NOT NULL CHECK (resolution IN ('last_write_wins', 'reject')),
    detected_at    timestamptz NOT NULL,
    PRIMARY KEY (log_partition, log_seq, projection, field)
);

CREATE INDEX conflict_entity_id_idx ON sitelog.conflict (entity_id);

-- The log as a person reads it.
CREATE VIEW sitelog.log AS
SELECT
    p.topic,
    p.partition,
    l.log_seq,
    l.kafka_offset,
    l.event_id,
    l.event_type,
    l.entity_id,
    l.event_time,
    l.append_time,
    l.ingest_time,
    s.name || ' ' || s.version AS schema,
    octet_length(l.payload) AS payload_bytes
FROM sitelog.event_log AS l
JOIN sitelog.log_partition AS p USING (log_partition)
LEFT JOIN sitelog.avro_schema AS s ON s.fingerprint = l.schema_fingerprint;

-- From here on as the integration guide defines it.
CREATE TABLE integration.sync_status (
    sync_id         UUID PRIMARY KEY DEFAULT gen_random_uuid(),
    source_system   VARCHAR(100) NOT NULL,
    target_system   VARCHAR(100) NOT NULL,
    entity_type     VARCHAR(100) NOT NULL,
    entity_id       VARCHAR(100) NOT NULL,
    sync_timestamp  TIMESTAMP WITH TIME ZONE DEFAULT NOW(),
    sync_status     VARCHAR(20) NOT NULL,
    error_message   TEXT,
    retry_count     INTEGER DEFAULT 0
);

CREATE TABLE integration.data_mapping (
    mapping_id           UUID PRIMARY KEY DEFAULT gen_random_uuid(),
    source_system        VARCHAR(100) NOT NULL,
    source_field         VARCHAR(200) NOT NULL,
    target_system        VARCHAR(100) NOT NULL,
    target_field         VARCHAR(200) NOT NULL,
    transformation_rule  TEXT,
    is_active            BOOLEAN DEFAULT TRUE,
    created_at           TIMESTAMP WITH TIME ZONE DEFAULT NOW()
);

CREATE INDEX idx_sync_status_entity ON integration.sync_status(entity_type, entity_id);
CREATE INDEX idx_sync_status_timestamp ON integration.sync_status(sync_timestamp);
CREATE INDEX idx_data_mapping_source ON integration.data_mapping(source_system, source_field);
