-- What PostgreSQL has beyond tables and their indexes. An empty line ends a statement.

-- The order of the journal.
CREATE SEQUENCE pushes_sequence OWNED BY pushes.sequence

ALTER TABLE pushes ALTER COLUMN sequence SET DEFAULT nextval('pushes_sequence')

-- Search in replies. Without a list of what is still to be put in: emptying it would make one push wait for many.
CREATE OR REPLACE FUNCTION text_grams(content text) RETURNS text[]
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT array_agg(DISTINCT gram) FROM (
        SELECT letter, lead(letter) OVER () AS following
        FROM unnest(string_to_array(content, NULL)) WITH ORDINALITY AS letters (letter, place) ORDER BY place
    ) AS pairs CROSS JOIN LATERAL (VALUES (letter), (letter || following)) AS grams (gram) WHERE gram IS NOT NULL $$

CREATE INDEX ix_replies_text ON replies USING gin (text_grams(lower(content))) WITH (fastupdate = off)

CREATE INDEX ix_replies_grams ON replies USING gin (string_to_array(content_grams, ' ')) WITH (fastupdate = off) WHERE content_grams IS NOT NULL

-- When a message last changed: what readers see of it, and what that follows from. Not the number: encrypting it
-- changes nothing for them.
CREATE OR REPLACE FUNCTION messages_unstamp() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.updated_at := '1970-01-01 00:00:00+00:00'; RETURN NEW; END $$

CREATE TRIGGER messages_unstamp BEFORE UPDATE OF account, task_id, template_id, reference, sent_at, recorded_at, status, reported_at, seen, send_state, error_message, verified_at ON messages FOR EACH ROW WHEN (new.updated_at = old.updated_at AND old.updated_at <> '1970-01-01 00:00:00+00:00') EXECUTE FUNCTION messages_unstamp()

-- The delivery report, added up.
CREATE OR REPLACE FUNCTION delivery_rollup_insert() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
IF EXISTS (SELECT FROM is_now) THEN
INSERT INTO delivery_hour_changes (hour, account, template_id, sent, refused, open, delivered, failed, unknown, waiting, unmatched, verified) SELECT * FROM (SELECT CAST(moment / 3600 AS INTEGER) AS hour, account, template_id, coalesce(sum(n) FILTER (WHERE recorded_at IS NOT NULL AND send_state IS NULL), 0) AS sent, coalesce(sum(n) FILTER (WHERE send_state = 'refused'), 0) AS refused, coalesce(sum(n) FILTER (WHERE send_state IN ('sending', 'outcome_unknown')), 0) AS open, coalesce(sum(n) FILTER (WHERE recorded_at IS NOT NULL AND status = 3), 0) AS delivered, coalesce(sum(n) FILTER (WHERE recorded_at IS NOT NULL AND status = 2), 0) AS failed, coalesce(sum(n) FILTER (WHERE recorded_at IS NOT NULL AND status = 1), 0) AS unknown, coalesce(sum(n) FILTER (WHERE recorded_at IS NOT NULL AND status = 0 AND send_state IS NULL), 0) AS waiting, coalesce(sum(n) FILTER (WHERE recorded_at IS NULL), 0) AS unmatched, coalesce(sum(n) FILTER (WHERE recorded_at IS NOT NULL AND verified_at IS NOT NULL), 0) AS verified FROM (SELECT 1 AS n, account, coalesce(template_id, '') AS template_id, status, recorded_at, send_state, verified_at, floor(extract(epoch FROM CASE WHEN recorded_at IS NULL THEN reported_at ELSE coalesce(sent_at, recorded_at) END))::bigint + zone.offset_seconds AS moment, CASE WHEN sent_at IS NOT NULL THEN greatest(0, least(2000000000, floor(extract(epoch FROM reported_at - sent_at))))::integer END AS seconds FROM is_now AS m CROSS JOIN delivery_zone AS zone WHERE (recorded_at IS NOT NULL OR reported_at IS NOT NULL) AND floor(extract(epoch FROM CASE WHEN recorded_at IS NULL THEN reported_at ELSE coalesce(sent_at, recorded_at) END))::bigint >= zone.closed_before) AS c GROUP BY 1, 2, 3) AS s WHERE sent <> 0 OR refused <> 0 OR open <> 0 OR delivered <> 0 OR failed <> 0 OR unknown <> 0 OR waiting <> 0 OR unmatched <> 0 OR verified <> 0;
INSERT INTO delivery_latency_changes (day, account, template_id, seconds, messages) SELECT * FROM (SELECT CAST(moment / 86400 AS INTEGER) AS day, account, template_id, seconds, sum(n) AS messages FROM (SELECT 1 AS n, account, coalesce(template_id, '') AS template_id, status, recorded_at, send_state, verified_at, floor(extract(epoch FROM CASE WHEN recorded_at IS NULL THEN reported_at ELSE coalesce(sent_at, recorded_at) END))::bigint + zone.offset_seconds AS moment, CASE WHEN sent_at IS NOT NULL THEN greatest(0, least(2000000000, floor(extract(epoch FROM reported_at - sent_at))))::integer END AS seconds FROM is_now AS m CROSS JOIN delivery_zone AS zone WHERE (recorded_at IS NOT NULL OR reported_at IS NOT NULL) AND floor(extract(epoch FROM CASE WHEN recorded_at IS NULL THEN reported_at ELSE coalesce(sent_at, recorded_at) END))::bigint >= zone.closed_before) AS c WHERE recorded_at IS NOT NULL AND status = 3 AND seconds IS NOT NULL GROUP BY 1, 2, 3, 4) AS s WHERE messages <> 0;
END IF;
RETURN NULL;
END $$

CREATE OR REPLACE FUNCTION delivery_rollup_update() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
IF EXISTS (SELECT FROM (SELECT account, template_id, status, reported_at, recorded_at, sent_at, send_state, verified_at FROM is_now EXCEPT ALL SELECT account, template_id, status, reported_at, recorded_at, sent_at, send_state, verified_at FROM was) AS differing) THEN
INSERT INTO delivery_hour_changes (hour, account, template_id, sent, refused, open, delivered, failed, unknown, waiting, unmatched, verified) SELECT * FROM (SELECT CAST(moment / 3600 AS INTEGER) AS hour, account, template_id, coalesce(sum(n) FILTER (WHERE recorded_at IS NOT NULL AND send_state IS NULL), 0) AS sent, coalesce(sum(n) FILTER (WHERE send_state = 'refused'), 0) AS refused, coalesce(sum(n) FILTER (WHERE send_state IN ('sending', 'outcome_unknown')), 0) AS open, coalesce(sum(n) FILTER (WHERE recorded_at IS NOT NULL AND status = 3), 0) AS delivered, coalesce(sum(n) FILTER (WHERE recorded_at IS NOT NULL AND status = 2), 0) AS failed, coalesce(sum(n) FILTER (WHERE recorded_at IS NOT NULL AND status = 1), 0) AS unknown, coalesce(sum(n) FILTER (WHERE recorded_at IS NOT NULL AND status = 0 AND send_state IS NULL), 0) AS waiting, coalesce(sum(n) FILTER (WHERE recorded_at IS NULL), 0) AS unmatched, coalesce(sum(n) FILTER (WHERE recorded_at IS NOT NULL AND verified_at IS NOT NULL), 0) AS verified FROM (SELECT 1 AS n, account, coalesce(template_id, '') AS template_id, status, recorded_at, send_state, verified_at, floor(extract(epoch FROM CASE WHEN recorded_at IS NULL THEN reported_at ELSE coalesce(sent_at, recorded_at) END))::bigint + zone.offset_seconds AS moment, CASE WHEN sent_at IS NOT NULL THEN greatest(0, least(2000000000, floor(extract(epoch FROM reported_at - sent_at))))::integer END AS seconds FROM is_now AS m CROSS JOIN delivery_zone AS zone WHERE (recorded_at IS NOT NULL OR reported_at IS NOT NULL) AND floor(extract(epoch FROM CASE WHEN recorded_at IS NULL THEN reported_at ELSE coalesce(sent_at, recorded_at) END))::bigint >= zone.closed_before UNION ALL SELECT -1 AS n, account, coalesce(template_id, '') AS template_id, status, recorded_at, send_state, verified_at, floor(extract(epoch FROM CASE WHEN recorded_at IS NULL THEN reported_at ELSE coalesce(sent_at, recorded_at) END))::bigint + zone.offset_seconds AS moment, CASE WHEN sent_at IS NOT NULL THEN greatest(0, least(2000000000, floor(extract(epoch FROM reported_at - sent_at))))::integer END AS seconds FROM was AS m CROSS JOIN delivery_zone AS zone WHERE (recorded_at IS NOT NULL OR reported_at IS NOT NULL) AND floor(extract(epoch FROM CASE WHEN recorded_at IS NULL THEN reported_at ELSE coalesce(sent_at, recorded_at) END))::bigint >= zone.closed_before) AS c GROUP BY 1, 2, 3) AS s WHERE sent <> 0 OR refused <> 0 OR open <> 0 OR delivered <> 0 OR failed <> 0 OR unknown <> 0 OR waiting <> 0 OR unmatched <> 0 OR verified <> 0;
INSERT INTO delivery_latency_changes (day, account, template_id, seconds, messages) SELECT * FROM (SELECT CAST(moment / 86400 AS INTEGER) AS day, account, template_id, seconds, sum(n) AS messages FROM (SELECT 1 AS n, account, coalesce(template_id, '') AS template_id, status, recorded_at, send_state, verified_at, floor(extract(epoch FROM CASE WHEN recorded_at IS NULL THEN reported_at ELSE coalesce(sent_at, recorded_at) END))::bigint + zone.offset_seconds AS moment, CASE WHEN sent_at IS NOT NULL THEN greatest(0, least(2000000000, floor(extract(epoch FROM reported_at - sent_at))))::integer END AS seconds FROM is_now AS m CROSS JOIN delivery_zone AS zone WHERE (recorded_at IS NOT NULL OR reported_at IS NOT NULL) AND floor(extract(epoch FROM CASE WHEN recorded_at IS NULL THEN reported_at ELSE coalesce(sent_at, recorded_at) END))::bigint >= zone.closed_before UNION ALL SELECT -1 AS n, account, coalesce(template_id, '') AS template_id, status, recorded_at, send_state, verified_at, floor(extract(epoch FROM CASE WHEN recorded_at IS NULL THEN reported_at ELSE coalesce(sent_at, recorded_at) END))::bigint + zone.offset_seconds AS moment, CASE WHEN sent_at IS NOT NULL THEN greatest(0, least(2000000000, floor(extract(epoch FROM reported_at - sent_at))))::integer END AS seconds FROM was AS m CROSS JOIN delivery_zone AS zone WHERE (recorded_at IS NOT NULL OR reported_at IS NOT NULL) AND floor(extract(epoch FROM CASE WHEN recorded_at IS NULL THEN reported_at ELSE coalesce(sent_at, recorded_at) END))::bigint >= zone.closed_before) AS c WHERE recorded_at IS NOT NULL AND status = 3 AND seconds IS NOT NULL GROUP BY 1, 2, 3, 4) AS s WHERE messages <> 0;
END IF;
RETURN NULL;
END $$

CREATE OR REPLACE FUNCTION delivery_rollup_delete() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
IF EXISTS (SELECT FROM was) THEN
INSERT INTO delivery_hour_changes (hour, account, template_id, sent, refused, open, delivered, failed, unknown, waiting, unmatched, verified) SELECT * FROM (SELECT CAST(moment / 3600 AS INTEGER) AS hour, account, template_id, coalesce(sum(n) FILTER (WHERE recorded_at IS NOT NULL AND send_state IS NULL), 0) AS sent, coalesce(sum(n) FILTER (WHERE send_state = 'refused'), 0) AS refused, coalesce(sum(n) FILTER (WHERE send_state IN ('sending', 'outcome_unknown')), 0) AS open, coalesce(sum(n) FILTER (WHERE recorded_at IS NOT NULL AND status = 3), 0) AS delivered, coalesce(sum(n) FILTER (WHERE recorded_at IS NOT NULL AND status = 2), 0) AS failed, coalesce(sum(n) FILTER (WHERE recorded_at IS NOT NULL AND status = 1), 0) AS unknown, coalesce(sum(n) FILTER (WHERE recorded_at IS NOT NULL AND status = 0 AND send_state IS NULL), 0) AS waiting, coalesce(sum(n) FILTER (WHERE recorded_at IS NULL), 0) AS unmatched, coalesce(sum(n) FILTER (WHERE recorded_at IS NOT NULL AND verified_at IS NOT NULL), 0) AS verified FROM (SELECT -1 AS n, account, coalesce(template_id, '') AS template_id, status, recorded_at, send_state, verified_at, floor(extract(epoch FROM CASE WHEN recorded_at IS NULL THEN reported_at ELSE coalesce(sent_at, recorded_at) END))::bigint + zone.offset_seconds AS moment, CASE WHEN sent_at IS NOT NULL THEN greatest(0, least(2000000000, floor(extract(epoch FROM reported_at - sent_at))))::integer END AS seconds FROM was AS m CROSS JOIN delivery_zone AS zone WHERE (recorded_at IS NOT NULL OR reported_at IS NOT NULL) AND floor(extract(epoch FROM CASE WHEN recorded_at IS NULL THEN reported_at ELSE coalesce(sent_at, recorded_at) END))::bigint >= zone.closed_before) AS c GROUP BY 1, 2, 3) AS s WHERE sent <> 0 OR refused <> 0 OR open <> 0 OR delivered <> 0 OR failed <> 0 OR unknown <> 0 OR waiting <> 0 OR unmatched <> 0 OR verified <> 0;
INSERT INTO delivery_latency_changes (day, account, template_id, seconds, messages) SELECT * FROM (SELECT CAST(moment / 86400 AS INTEGER) AS day, account, template_id, seconds, sum(n) AS messages FROM (SELECT -1 AS n, account, coalesce(template_id, '') AS template_id, status, recorded_at, send_state, verified_at, floor(extract(epoch FROM CASE WHEN recorded_at IS NULL THEN reported_at ELSE coalesce(sent_at, recorded_at) END))::bigint + zone.offset_seconds AS moment, CASE WHEN sent_at IS NOT NULL THEN greatest(0, least(2000000000, floor(extract(epoch FROM reported_at - sent_at))))::integer END AS seconds FROM was AS m CROSS JOIN delivery_zone AS zone WHERE (recorded_at IS NOT NULL OR reported_at IS NOT NULL) AND floor(extract(epoch FROM CASE WHEN recorded_at IS NULL THEN reported_at ELSE coalesce(sent_at, recorded_at) END))::bigint >= zone.closed_before) AS c WHERE recorded_at IS NOT NULL AND status = 3 AND seconds IS NOT NULL GROUP BY 1, 2, 3, 4) AS s WHERE messages <> 0;
END IF;
RETURN NULL;
END $$

CREATE TRIGGER delivery_rollup_insert AFTER INSERT ON messages REFERENCING NEW TABLE AS is_now FOR EACH STATEMENT EXECUTE FUNCTION delivery_rollup_insert()

CREATE TRIGGER delivery_rollup_update AFTER UPDATE ON messages REFERENCING OLD TABLE AS was NEW TABLE AS is_now FOR EACH STATEMENT EXECUTE FUNCTION delivery_rollup_update()

CREATE TRIGGER delivery_rollup_delete AFTER DELETE ON messages REFERENCING OLD TABLE AS was FOR EACH STATEMENT EXECUTE FUNCTION delivery_rollup_delete()

-- Entries of the audit stay as they are.
CREATE OR REPLACE FUNCTION audit_keep() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF TG_OP = 'UPDATE' AND OLD.position IS NULL AND OLD.hash IS NULL AND NEW.id IS NOT DISTINCT FROM OLD.id AND NEW.at IS NOT DISTINCT FROM OLD.at AND NEW.actor IS NOT DISTINCT FROM OLD.actor AND NEW.action IS NOT DISTINCT FROM OLD.action
                AND NEW.detail::text IS NOT DISTINCT FROM OLD.detail::text THEN RETURN NEW; END IF;
            IF TG_OP = 'DELETE' AND OLD.position <= (SELECT horizon_position FROM audit_chain) THEN RETURN OLD; END IF;
            RAISE EXCEPTION 'entries of the audit stay as they are' USING ERRCODE = 'integrity_constraint_violation';
        END $$

CREATE OR REPLACE FUNCTION audit_keep_whole() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN RAISE EXCEPTION 'entries of the audit stay as they are' USING ERRCODE = 'integrity_constraint_violation'; END $$

CREATE TRIGGER audit_keep_entry BEFORE UPDATE OR DELETE ON audit FOR EACH ROW EXECUTE FUNCTION audit_keep()

CREATE TRIGGER audit_keep_whole BEFORE TRUNCATE ON audit FOR EACH STATEMENT EXECUTE FUNCTION audit_keep_whole()

CREATE TRIGGER audit_chain_keep_whole BEFORE DELETE OR TRUNCATE ON audit_chain FOR EACH STATEMENT EXECUTE FUNCTION audit_keep_whole()

-- Views for SQL readers.
CREATE SCHEMA IF NOT EXISTS reporting

COMMENT ON SCHEMA reporting IS 'Views for SQL readers, numbers masked.'

CREATE VIEW reporting.version AS SELECT 2 AS version

CREATE VIEW reporting.messages AS SELECT messages.id AS id, messages.account AS account, messages.task_id AS task_id, CASE WHEN (length(messages.mobile) = 42) THEN '***' ELSE CASE WHEN strpos(messages.mobile, '*') > 0 THEN substr(messages.mobile, 1, 3) || repeat('*', length(messages.mobile) - 3 - 0) || substr(messages.mobile, length(messages.mobile) - 0 + 1) WHEN length(messages.mobile) >= 10 THEN substr(messages.mobile, 1, 3) || repeat('*', length(messages.mobile) - 3 - 4) || substr(messages.mobile, length(messages.mobile) - 4 + 1) ELSE substr(messages.mobile, 1, length(messages.mobile) / 4) || repeat('*', length(messages.mobile) - length(messages.mobile) / 4 - length(messages.mobile) / 4) || substr(messages.mobile, length(messages.mobile) - length(messages.mobile) / 4 + 1) END END AS mobile, messages.template_id AS template_id, messages.reference AS reference, messages.sent_at AS sent_at, messages.recorded_at AS recorded_at, coalesce(messages.sent_at, messages.recorded_at) AS counted_at, CASE WHEN (messages.status = 3) THEN 'delivered' WHEN (messages.status = 2) THEN 'failed' WHEN (messages.status = 1) THEN 'unknown' WHEN (messages.send_state = 'refused') THEN 'refused' WHEN (messages.send_state = 'outcome_unknown' OR messages.send_state = 'sending' AND coalesce((now() - make_interval(secs => 60)) > coalesce(messages.sent_at, messages.recorded_at), false)) THEN 'outcome_unknown' WHEN (messages.send_state = 'sending' AND NOT coalesce((now() - make_interval(secs => 60)) > coalesce(messages.sent_at, messages.recorded_at), false)) THEN 'sending' WHEN (messages.status = 0 AND messages.send_state IS NULL AND coalesce((now() - make_interval(secs => (SELECT status_ages.seconds 
FROM status_ages 
WHERE status_ages.name = 'no_receipt_after'))) > coalesce(messages.sent_at, messages.recorded_at), false)) THEN 'no_receipt' ELSE 'pending' END AS status, messages.status = 0 AND messages.send_state IS NULL AND coalesce((now() - make_interval(secs => (SELECT status_ages.seconds 
FROM status_ages 
WHERE status_ages.name = 'late_after'))) > coalesce(messages.sent_at, messages.recorded_at), false) AND NOT coalesce((now() - make_interval(secs => (SELECT status_ages.seconds 
FROM status_ages 
WHERE status_ages.name = 'no_receipt_after'))) > coalesce(messages.sent_at, messages.recorded_at), false) AS late, messages.reported_at AS reported_at, CASE WHEN messages.reported_at <= messages.sent_at THEN 0 WHEN messages.reported_at < '10000-01-01' AND messages.sent_at >= '0001-01-01' THEN date_part('epoch', messages.reported_at - messages.sent_at) END AS latency_seconds, messages.recorded_at IS NOT NULL AS matched, messages.seen & 12 = 12 AS conflicting, messages.error_message AS error_message, (SELECT count(*) AS count_1 
FROM receipts 
WHERE receipts.message_id = messages.id) AS receipt_count, (SELECT count(*) AS count_2 
FROM replies 
WHERE replies.message_id = messages.id) AS reply_count, messages.verified_at AS verified_at, messages.updated_at AS updated_at 
FROM messages

CREATE VIEW reporting.receipts AS SELECT receipts.id AS id, receipts.message_id AS message_id, CASE WHEN (receipts.masked_mobile != '') THEN receipts.account ELSE messages.account END AS account, CASE WHEN (receipts.masked_mobile != '') THEN receipts.task_id ELSE messages.task_id END AS task_id, CASE WHEN (length(CASE WHEN (receipts.masked_mobile != '') THEN receipts.masked_mobile ELSE messages.mobile END) = 42) THEN '***' ELSE CASE WHEN strpos(CASE WHEN (receipts.masked_mobile != '') THEN receipts.masked_mobile ELSE messages.mobile END, '*') > 0 THEN substr(CASE WHEN (receipts.masked_mobile != '') THEN receipts.masked_mobile ELSE messages.mobile END, 1, 3) || repeat('*', length(CASE WHEN (receipts.masked_mobile != '') THEN receipts.masked_mobile ELSE messages.mobile END) - 3 - 0) || substr(CASE WHEN (receipts.masked_mobile != '') THEN receipts.masked_mobile ELSE messages.mobile END, length(CASE WHEN (receipts.masked_mobile != '') THEN receipts.masked_mobile ELSE messages.mobile END) - 0 + 1) WHEN length(CASE WHEN (receipts.masked_mobile != '') THEN receipts.masked_mobile ELSE messages.mobile END) >= 10 THEN substr(CASE WHEN (receipts.masked_mobile != '') THEN receipts.masked_mobile ELSE messages.mobile END, 1, 3) || repeat('*', length(CASE WHEN (receipts.masked_mobile != '') THEN receipts.masked_mobile ELSE messages.mobile END) - 3 - 4) || substr(CASE WHEN (receipts.masked_mobile != '') THEN receipts.masked_mobile ELSE messages.mobile END, length(CASE WHEN (receipts.masked_mobile != '') THEN receipts.masked_mobile ELSE messages.mobile END) - 4 + 1) ELSE substr(CASE WHEN (receipts.masked_mobile != '') THEN receipts.masked_mobile ELSE messages.mobile END, 1, length(CASE WHEN (receipts.masked_mobile != '') THEN receipts.masked_mobile ELSE messages.mobile END) / 4) || repeat('*', length(CASE WHEN (receipts.masked_mobile != '') THEN receipts.masked_mobile ELSE messages.mobile END) - length(CASE WHEN (receipts.masked_mobile != '') THEN receipts.masked_mobile ELSE messages.mobile END) / 4 - length(CASE WHEN (receipts.masked_mobile != '') THEN receipts.masked_mobile ELSE messages.mobile END) / 4) || substr(CASE WHEN (receipts.masked_mobile != '') THEN receipts.masked_mobile ELSE messages.mobile END, length(CASE WHEN (receipts.masked_mobile != '') THEN receipts.masked_mobile ELSE messages.mobile END) - length(CASE WHEN (receipts.masked_mobile != '') THEN receipts.masked_mobile ELSE messages.mobile END) / 4 + 1) END END AS mobile, CASE receipts.vendor_status WHEN '1' THEN 'delivered' WHEN '0' THEN 'failed' ELSE 'unknown' END AS status, receipts.vendor_status AS vendor_status, receipts.reported_at AS reported_at, receipts.received_at AS received_at, receipts.last_seen_at AS last_seen_at, receipts.copies AS copies, CASE json_typeof(receipts.extra) WHEN 'object' THEN (SELECT '{' || coalesce(string_agg(to_json(regexp_replace(key, '(?<![0-9０-９])((?:(?:[+＋]|[0０]{2})?[8８][6６])?[1１](?:[0-9０-９]){2})(?:[0-9０-９]){4}([0-9０-９](?:[0-9０-９]){3})(?![0-9０-９])|(?<![0-9０-９A-Fa-f])((?:(?:[+＋]|[0０]{2})?[8８][ 	    ​‌‍ ⁠　﻿‐‑‒–—―−－-]{0,3}[6６][ 	    ​‌‍ ⁠　﻿‐‑‒–—―−－-]{0,3})?[1１](?:[ 	    ​‌‍ ⁠　﻿‐‑‒–—―−－-]{0,3}[0-9０-９]){2})(?:[ 	    ​‌‍ ⁠　﻿‐‑‒–—―−－-]{0,3}[0-9０-９]){4}[ 	    ​‌‍ ⁠　﻿‐‑‒–—―−－-]{0,3}([0-9０-９](?:[ 	    ​‌‍ ⁠　﻿‐‑‒–—―−－-]{0,3}[0-9０-９]){3})(?![0-9０-９A-Fa-f])', '\1\3****\2\4', 'g')) || ': ' || to_json(regexp_replace(value, '(?<![0-9０-９])((?:(?:[+＋]|[0０]{2})?[8８][6６])?[1１](?:[0-9０-９]){2})(?:[0-9０-９]){4}([0-9０-９](?:[0-9０-９]){3})(?![0-9０-９])|(?<![0-9０-９A-Fa-f])((?:(?:[+＋]|[0０]{2})?[8８][ 	    ​‌‍ ⁠　﻿‐‑‒–—―−－-]{0,3}[6６][ 	    ​‌‍ ⁠　﻿‐‑‒–—―−－-]{0,3})?[1１](?:[ 	    ​‌‍ ⁠　﻿‐‑‒–—―−－-]{0,3}[0-9０-９]){2})(?:[ 	    ​‌‍ ⁠　﻿‐‑‒–—―−－-]{0,3}[0-9０-９]){4}[ 	    ​‌‍ ⁠　﻿‐‑‒–—―−－-]{0,3}([0-9０-９](?:[ 	    ​‌‍ ⁠　﻿‐‑‒–—―−－-]{0,3}[0-9０-９]){3})(?![0-9０-９A-Fa-f])', '\1\3****\2\4', 'g')), ', '), '') || '}' FROM json_each_text(regexp_replace(receipts.extra::text, '(?<!\\)((?:\\\\)*)\\u0000', '\1\\u2400', 'g')::json)) ELSE '{}' END AS extra, receipts.push_id AS push_id 
FROM receipts LEFT OUTER JOIN messages ON messages.id = receipts.message_id

CREATE VIEW reporting.replies AS SELECT replies.id AS id, replies.message_id AS message_id, CASE WHEN (replies.masked_mobile != '') THEN replies.account ELSE messages.account END AS account, CASE WHEN (replies.masked_mobile != '') THEN replies.task_id ELSE messages.task_id END AS task_id, CASE WHEN (length(CASE WHEN (replies.masked_mobile != '') THEN replies.masked_mobile ELSE messages.mobile END) = 42) THEN '***' ELSE CASE WHEN strpos(CASE WHEN (replies.masked_mobile != '') THEN replies.masked_mobile ELSE messages.mobile END, '*') > 0 THEN substr(CASE WHEN (replies.masked_mobile != '') THEN replies.masked_mobile ELSE messages.mobile END, 1, 3) || repeat('*', length(CASE WHEN (replies.masked_mobile != '') THEN replies.masked_mobile ELSE messages.mobile END) - 3 - 0) || substr(CASE WHEN (replies.masked_mobile != '') THEN replies.masked_mobile ELSE messages.mobile END, length(CASE WHEN (replies.masked_mobile != '') THEN replies.masked_mobile ELSE messages.mobile END) - 0 + 1) WHEN length(CASE WHEN (replies.masked_mobile != '') THEN replies.masked_mobile ELSE messages.mobile END) >= 10 THEN substr(CASE WHEN (replies.masked_mobile != '') THEN replies.masked_mobile ELSE messages.mobile END, 1, 3) || repeat('*', length(CASE WHEN (replies.masked_mobile != '') THEN replies.masked_mobile ELSE messages.mobile END) - 3 - 4) || substr(CASE WHEN (replies.masked_mobile != '') THEN replies.masked_mobile ELSE messages.mobile END, length(CASE WHEN (replies.masked_mobile != '') THEN replies.masked_mobile ELSE messages.mobile END) - 4 + 1) ELSE substr(CASE WHEN (replies.masked_mobile != '') THEN replies.masked_mobile ELSE messages.mobile END, 1, length(CASE WHEN (replies.masked_mobile != '') THEN replies.masked_mobile ELSE messages.mobile END) / 4) || repeat('*', length(CASE WHEN (replies.masked_mobile != '') THEN replies.masked_mobile ELSE messages.mobile END) - length(CASE WHEN (replies.masked_mobile != '') THEN replies.masked_mobile ELSE messages.mobile END) / 4 - length(CASE WHEN (replies.masked_mobile != '') THEN replies.masked_mobile ELSE messages.mobile END) / 4) || substr(CASE WHEN (replies.masked_mobile != '') THEN replies.masked_mobile ELSE messages.mobile END, length(CASE WHEN (replies.masked_mobile != '') THEN replies.masked_mobile ELSE messages.mobile END) - length(CASE WHEN (replies.masked_mobile != '') THEN replies.masked_mobile ELSE messages.mobile END) / 4 + 1) END END AS mobile, regexp_replace(replies.content, '(?<![0-9０-９])((?:(?:[+＋]|[0０]{2})?[8８][6６])?[1１](?:[0-9０-９]){2})(?:[0-9０-９]){4}([0-9０-９](?:[0-9０-９]){3})(?![0-9０-９])|(?<![0-9０-９A-Fa-f])((?:(?:[+＋]|[0０]{2})?[8８][ 	    ​‌‍ ⁠　﻿‐‑‒–—―−－-]{0,3}[6６][ 	    ​‌‍ ⁠　﻿‐‑‒–—―−－-]{0,3})?[1１](?:[ 	    ​‌‍ ⁠　﻿‐‑‒–—―−－-]{0,3}[0-9０-９]){2})(?:[ 	    ​‌‍ ⁠　﻿‐‑‒–—―−－-]{0,3}[0-9０-９]){4}[ 	    ​‌‍ ⁠　﻿‐‑‒–—―−－-]{0,3}([0-9０-９](?:[ 	    ​‌‍ ⁠　﻿‐‑‒–—―−－-]{0,3}[0-9０-９]){3})(?![0-9０-９A-Fa-f])', '\1\3****\2\4', 'g') AS content, replies.opt_out AS opt_out, replies.opt_out_review AS opt_out_review, replies.replied_at AS replied_at, replies.received_at AS received_at, replies.last_seen_at AS last_seen_at, replies.copies AS copies, CASE json_typeof(replies.extra) WHEN 'object' THEN (SELECT '{' || coalesce(string_agg(to_json(regexp_replace(key, '(?<![0-9０-９])((?:(?:[+＋]|[0０]{2})?[8８][6６])?[1１](?:[0-9０-９]){2})(?:[0-9０-９]){4}([0-9０-９](?:[0-9０-９]){3})(?![0-9０-９])|(?<![0-9０-９A-Fa-f])((?:(?:[+＋]|[0０]{2})?[8８][ 	    ​‌‍ ⁠　﻿‐‑‒–—―−－-]{0,3}[6６][ 	    ​‌‍ ⁠　﻿‐‑‒–—―−－-]{0,3})?[1１](?:[ 	    ​‌‍ ⁠　﻿‐‑‒–—―−－-]{0,3}[0-9０-９]){2})(?:[ 	    ​‌‍ ⁠　﻿‐‑‒–—―−－-]{0,3}[0-9０-９]){4}[ 	    ​‌‍ ⁠　﻿‐‑‒–—―−－-]{0,3}([0-9０-９](?:[ 	    ​‌‍ ⁠　﻿‐‑‒–—―−－-]{0,3}[0-9０-９]){3})(?![0-9０-９A-Fa-f])', '\1\3****\2\4', 'g')) || ': ' || to_json(regexp_replace(value, '(?<![0-9０-９])((?:(?:[+＋]|[0０]{2})?[8８][6６])?[1１](?:[0-9０-９]){2})(?:[0-9０-９]){4}([0-9０-９](?:[0-9０-９]){3})(?![0-9０-９])|(?<![0-9０-９A-Fa-f])((?:(?:[+＋]|[0０]{2})?[8８][ 	    ​‌‍ ⁠　﻿‐‑‒–—―−－-]{0,3}[6６][ 	    ​‌‍ ⁠　﻿‐‑‒–—―−－-]{0,3})?[1１](?:[ 	    ​‌‍ ⁠　﻿‐‑‒–—―−－-]{0,3}[0-9０-９]){2})(?:[ 	    ​‌‍ ⁠　﻿‐‑‒–—―−－-]{0,3}[0-9０-９]){4}[ 	    ​‌‍ ⁠　﻿‐‑‒–—―−－-]{0,3}([0-9０-９](?:[ 	    ​‌‍ ⁠　﻿‐‑‒–—―−－-]{0,3}[0-9０-９]){3})(?![0-9０-９A-Fa-f])', '\1\3****\2\4', 'g')), ', '), '') || '}' FROM json_each_text(regexp_replace(replies.extra::text, '(?<!\\)((?:\\\\)*)\\u0000', '\1\\u2400', 'g')::json)) ELSE '{}' END AS extra, replies.push_id AS push_id 
FROM replies LEFT OUTER JOIN messages ON messages.id = replies.message_id

COMMENT ON VIEW reporting.messages IS 'What was sent, one row for each (account, task_id, mobile); as of the present moment.'

COMMENT ON VIEW reporting.receipts IS 'Delivery receipts: each that differs, once.'

COMMENT ON VIEW reporting.replies IS 'Replies of phones: each that differs, once.'

COMMENT ON VIEW reporting.version IS 'How often columns were added to these views.'

COMMENT ON COLUMN reporting.version.version IS 'How often columns were added to these views.'

COMMENT ON COLUMN reporting.messages.id IS 'In the order in which the receiver first saw them.'

COMMENT ON COLUMN reporting.messages.account IS 'The account of the platform.'

COMMENT ON COLUMN reporting.messages.task_id IS 'The platform''s id of the send. Null: the platform refused it.'

COMMENT ON COLUMN reporting.messages.mobile IS 'The phone number, masked where the full one may not be read: `150****1090`.'

COMMENT ON COLUMN reporting.messages.template_id IS 'The template that was sent.'

COMMENT ON COLUMN reporting.messages.reference IS 'The sender''s own id.'

COMMENT ON COLUMN reporting.messages.sent_at IS 'When it was sent, as the sender reported.'

COMMENT ON COLUMN reporting.messages.recorded_at IS 'When the send was recorded here. Null: unmatched.'

COMMENT ON COLUMN reporting.messages.counted_at IS 'The time that filters and reports go by: `sent_at`, else `recorded_at`. In SQL, the column to filter by: on PostgreSQL it has an index.'

COMMENT ON COLUMN reporting.messages.status IS 'What its receipts say at present; `no_receipt`: pending for over RECEIVER_NO_RECEIPT_AFTER_HOURS.'

COMMENT ON COLUMN reporting.messages.late IS 'Pending for over RECEIVER_LATE_AFTER_SECONDS.'

COMMENT ON COLUMN reporting.messages.reported_at IS 'The platform''s time of the receipt that decides.'

COMMENT ON COLUMN reporting.messages.latency_seconds IS 'From `sent_at` to `reported_at`, in seconds, never below 0.'

COMMENT ON COLUMN reporting.messages.matched IS 'The send is recorded here.'

COMMENT ON COLUMN reporting.messages.conflicting IS 'Both delivered and failed were reported.'

COMMENT ON COLUMN reporting.messages.error_message IS 'Why the platform refused the send.'

COMMENT ON COLUMN reporting.messages.receipt_count IS 'How many different receipts it has. Those that are pruned no longer count, without a new `updated_at`.'

COMMENT ON COLUMN reporting.messages.reply_count IS 'How many different replies it has. Those that are pruned no longer count, without a new `updated_at`.'

COMMENT ON COLUMN reporting.messages.verified_at IS 'When its code was first used, as the sender reported.'

COMMENT ON COLUMN reporting.messages.updated_at IS 'When it last changed, or got a receipt or reply; for a moment after that, an earlier time; 2000 for what has not changed since before there was such a time. Whoever reads with `updated_from`, from 1970-01-01 at first and then from the highest one, misses no change. In SQL, 1970 for that moment; on PostgreSQL it has an index.'

COMMENT ON COLUMN reporting.receipts.id IS 'In the order in which the receiver first saw them.'

COMMENT ON COLUMN reporting.receipts.message_id IS 'The message that it belongs to. Null: none is known.'

COMMENT ON COLUMN reporting.receipts.account IS 'The account of the platform.'

COMMENT ON COLUMN reporting.receipts.task_id IS 'The platform''s id of the send.'

COMMENT ON COLUMN reporting.receipts.mobile IS 'The phone number, masked where the full one may not be read: `150****1090`.'

COMMENT ON COLUMN reporting.receipts.status IS 'What `vendor_status` means.'

COMMENT ON COLUMN reporting.receipts.vendor_status IS 'The platform''s value: 1 delivered, 0 failed.'

COMMENT ON COLUMN reporting.receipts.reported_at IS 'The platform''s time of the report.'

COMMENT ON COLUMN reporting.receipts.received_at IS 'When the receiver first got it.'

COMMENT ON COLUMN reporting.receipts.last_seen_at IS 'When the receiver last got it.'

COMMENT ON COLUMN reporting.receipts.copies IS 'How many times it was pushed.'

COMMENT ON COLUMN reporting.receipts.extra IS 'Fields that the platform does not document.'

COMMENT ON COLUMN reporting.receipts.push_id IS 'The push that first contained it.'

COMMENT ON COLUMN reporting.replies.id IS 'In the order in which the receiver first saw them.'

COMMENT ON COLUMN reporting.replies.message_id IS 'The message that it belongs to. Null: none is known.'

COMMENT ON COLUMN reporting.replies.account IS 'The account of the platform.'

COMMENT ON COLUMN reporting.replies.task_id IS 'Null if the platform sent none; then there is no message either.'

COMMENT ON COLUMN reporting.replies.mobile IS 'The phone number, masked where the full one may not be read: `150****1090`.'

COMMENT ON COLUMN reporting.replies.content IS 'The text as received; NUL is shown as ␀.'

COMMENT ON COLUMN reporting.replies.opt_out IS 'The reply equals one of `RECEIVER_OPT_OUT_WORDS`.'

COMMENT ON COLUMN reporting.replies.opt_out_review IS 'The reply contains one of these words or of `RECEIVER_OPT_OUT_PHRASES`, or is similar to one.'

COMMENT ON COLUMN reporting.replies.replied_at IS 'The platform''s time of the reply.'

COMMENT ON COLUMN reporting.replies.received_at IS 'When the receiver first got it.'

COMMENT ON COLUMN reporting.replies.last_seen_at IS 'When the receiver last got it.'

COMMENT ON COLUMN reporting.replies.copies IS 'How many times it was pushed.'

COMMENT ON COLUMN reporting.replies.extra IS 'Fields that the platform does not document.'

COMMENT ON COLUMN reporting.replies.push_id IS 'The push that first contained it.'
