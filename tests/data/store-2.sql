BEGIN TRANSACTION;
CREATE TABLE experiments (
	id INTEGER NOT NULL, 
	name TEXT NOT NULL, 
	PRIMARY KEY (id), 
	UNIQUE (name)
);
INSERT INTO "experiments" VALUES(1,'default');
CREATE TABLE known_keys (
	id INTEGER NOT NULL, 
	family TEXT NOT NULL, 
	"key" TEXT NOT NULL, 
	unlisted INTEGER DEFAULT 0 NOT NULL, 
	PRIMARY KEY (id), 
	UNIQUE (family, "key")
);
INSERT INTO "known_keys" VALUES(1,'metadata','app_version',0);
INSERT INTO "known_keys" VALUES(2,'metadata','environment',0);
INSERT INTO "known_keys" VALUES(3,'metadata','mlflow.source.type',0);
INSERT INTO "known_keys" VALUES(4,'metadata','mlflow.trace.session',0);
INSERT INTO "known_keys" VALUES(5,'metadata','mlflow.traceInputs',2);
INSERT INTO "known_keys" VALUES(6,'metadata','note',1);
INSERT INTO "known_keys" VALUES(7,'metadata','nul',2);
INSERT INTO "known_keys" VALUES(8,'metadata','region',0);
INSERT INTO "known_keys" VALUES(9,'metadata','tenant',0);
INSERT INTO "known_keys" VALUES(10,'span','http.route',0);
INSERT INTO "known_keys" VALUES(11,'tag','mlflow.traceName',0);
INSERT INTO "known_keys" VALUES(12,'tag','team',0);
CREATE TABLE processes (
	id INTEGER NOT NULL, 
	host TEXT NOT NULL, 
	pid INTEGER NOT NULL, 
	started BIGINT NOT NULL, 
	reported BIGINT NOT NULL, 
	report TEXT NOT NULL, 
	PRIMARY KEY (id), 
	UNIQUE (host, pid, started)
);
CREATE TABLE schema_version (
	version INTEGER NOT NULL
);
INSERT INTO "schema_version" VALUES(2);
CREATE TABLE sources (
	id INTEGER NOT NULL, 
	digest TEXT NOT NULL, 
	metadata TEXT NOT NULL, 
	PRIMARY KEY (id), 
	UNIQUE (digest)
);
INSERT INTO "sources" VALUES(1,'1f5ed7d6c4bdb7c44fb1eb625a4578ab','{"app_version":"1.0.0","environment":"production","mlflow.source.type":"production","region":"eu"}');
CREATE TABLE spans (
	id INTEGER NOT NULL, 
	trace INTEGER NOT NULL, 
	span_id TEXT NOT NULL, 
	parent_id TEXT, 
	name TEXT NOT NULL, 
	span_type TEXT NOT NULL, 
	status_code TEXT NOT NULL, 
	status_message TEXT NOT NULL, 
	start_ns BIGINT NOT NULL, 
	end_ns BIGINT, 
	inputs TEXT, 
	outputs TEXT, 
	attributes TEXT NOT NULL, 
	events TEXT, 
	links TEXT, 
	PRIMARY KEY (id), 
	UNIQUE (trace, span_id), 
	FOREIGN KEY(trace) REFERENCES traces (id) ON DELETE CASCADE
);
INSERT INTO "spans" VALUES(1,1,'0000000000000001',NULL,'GET /','SERVER','OK','',1700000000001000000,1700000000006000000,NULL,NULL,'{"http.route":"/"}',NULL,NULL);
INSERT INTO "spans" VALUES(2,2,'0000000000000002',NULL,'GET /','SERVER','OK','',1700000000002000000,1700000000007000000,NULL,NULL,'{"http.route":"/"}',NULL,NULL);
INSERT INTO "spans" VALUES(3,3,'0000000000000003',NULL,'POST /rare','SERVER','OK','',1700000000003000000,1700000000008000000,NULL,NULL,'{"http.route":"/"}',NULL,NULL);
CREATE TABLE trace_values (
	"key" INTEGER NOT NULL, 
	value TEXT NOT NULL, 
	request_time BIGINT NOT NULL, 
	trace INTEGER NOT NULL, 
	PRIMARY KEY ("key", value, request_time, trace), 
	FOREIGN KEY("key") REFERENCES known_keys (id)
)
 WITHOUT ROWID

;
INSERT INTO "trace_values" VALUES(9,'acme',1700000000001,1);
INSERT INTO "trace_values" VALUES(9,'other',1700000000002,2);
INSERT INTO "trace_values" VALUES(12,'core',1700000000001,1);
INSERT INTO "trace_values" VALUES(12,'web',1700000000003,3);
CREATE TABLE traces (
	id INTEGER NOT NULL, 
	trace_id TEXT NOT NULL, 
	experiment_id INTEGER NOT NULL, 
	source_id INTEGER NOT NULL, 
	name TEXT, 
	state TEXT NOT NULL, 
	request_time BIGINT NOT NULL, 
	duration_us BIGINT, 
	client_request_id TEXT, 
	session_id TEXT, 
	user_id TEXT, 
	request_preview TEXT, 
	response_preview TEXT, 
	metadata TEXT NOT NULL, 
	tags TEXT NOT NULL, 
	PRIMARY KEY (id), 
	UNIQUE (trace_id), 
	FOREIGN KEY(experiment_id) REFERENCES experiments (id), 
	FOREIGN KEY(source_id) REFERENCES sources (id)
);
INSERT INTO "traces" VALUES(1,'tr-00000000000000000000000000000001',1,1,'GET /','OK',1700000000001,5000,'r1','s1',NULL,NULL,NULL,'{"tenant":"acme"}','{"team":"core"}');
INSERT INTO "traces" VALUES(2,'tr-00000000000000000000000000000002',1,1,'GET /','OK',1700000000002,5000,'r2',NULL,NULL,NULL,NULL,'{"tenant":"other","note":"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"}','{}');
INSERT INTO "traces" VALUES(3,'tr-00000000000000000000000000000003',1,1,'POST /rare','OK',1700000000003,5000,'r3',NULL,NULL,NULL,NULL,'{"nul":"a\u0000b","mlflow.traceInputs":"{}"}','{"team":"web"}');
CREATE INDEX ix_traces_client_request_id ON traces (client_request_id, request_time) WHERE client_request_id IS NOT NULL;
CREATE INDEX ix_traces_request_time ON traces (request_time);
CREATE INDEX ix_traces_session_id ON traces (session_id, request_time) WHERE session_id IS NOT NULL;
CREATE INDEX ix_traces_source ON traces (source_id, request_time, state, duration_us);
CREATE INDEX ix_traces_state ON traces (state, request_time);
CREATE INDEX ix_traces_user_id ON traces (user_id, request_time) WHERE user_id IS NOT NULL;
CREATE INDEX ix_traces_name ON traces (name, request_time) WHERE name IS NOT NULL;
CREATE TRIGGER values_after_delete AFTER DELETE ON traces WHEN OLD.metadata <> '{}' OR OLD.tags <> '{}' BEGIN DELETE FROM trace_values WHERE (key, value, request_time, trace) IN (SELECT known.id, pair.value, OLD.request_time, OLD.id FROM json_each(OLD.metadata) AS pair CROSS JOIN known_keys AS known ON known.family = 'metadata' AND known.key = pair.key); DELETE FROM trace_values WHERE (key, value, request_time, trace) IN (SELECT known.id, pair.value, OLD.request_time, OLD.id FROM json_each(OLD.tags) AS pair CROSS JOIN known_keys AS known ON known.family = 'tag' AND known.key = pair.key); END;
CREATE TRIGGER values_after_update AFTER UPDATE OF metadata, tags ON traces WHEN OLD.metadata <> NEW.metadata OR OLD.tags <> NEW.tags BEGIN DELETE FROM trace_values WHERE (key, value, request_time, trace) IN (SELECT known.id, pair.value, OLD.request_time, OLD.id FROM json_each(OLD.metadata) AS pair CROSS JOIN known_keys AS known ON known.family = 'metadata' AND known.key = pair.key); DELETE FROM trace_values WHERE (key, value, request_time, trace) IN (SELECT known.id, pair.value, OLD.request_time, OLD.id FROM json_each(OLD.tags) AS pair CROSS JOIN known_keys AS known ON known.family = 'tag' AND known.key = pair.key); INSERT OR IGNORE INTO trace_values (key, value, request_time, trace) SELECT known.id, pair.value, NEW.request_time, NEW.id FROM json_each(NEW.metadata) AS pair CROSS JOIN known_keys AS known ON known.family = 'metadata' AND known.key = pair.key WHERE instr(NEW.metadata, '\u0000') = 0 AND pair.key GLOB '?*' AND NOT pair.key GLOB '*[^] !#-[^-~]*' AND pair.key NOT IN ('mlflow.trace.cost', 'mlflow.trace.sizeBytes', 'mlflow.trace.sizeStats', 'mlflow.trace.tokenUsage', 'mlflow.traceInputs', 'mlflow.traceOutputs') AND length(pair.value) <= 128; UPDATE known_keys SET unlisted = 1 WHERE family = 'metadata' AND unlisted < 1 AND key IN (SELECT pair.key FROM json_each(NEW.metadata) AS pair WHERE NOT (length(pair.value) <= 128)); UPDATE known_keys SET unlisted = 2 WHERE family = 'metadata' AND unlisted < 2 AND key IN (SELECT pair.key FROM json_each(NEW.metadata) AS pair WHERE NOT (instr(NEW.metadata, '\u0000') = 0)); INSERT OR IGNORE INTO trace_values (key, value, request_time, trace) SELECT known.id, pair.value, NEW.request_time, NEW.id FROM json_each(NEW.tags) AS pair CROSS JOIN known_keys AS known ON known.family = 'tag' AND known.key = pair.key WHERE instr(NEW.tags, '\u0000') = 0 AND pair.key GLOB '?*' AND NOT pair.key GLOB '*[^] !#-[^-~]*' AND pair.key NOT IN ('mlflow.trace.cost', 'mlflow.trace.sizeBytes', 'mlflow.trace.sizeStats', 'mlflow.trace.tokenUsage', 'mlflow.traceInputs', 'mlflow.traceOutputs') AND length(pair.value) <= 128; UPDATE known_keys SET unlisted = 1 WHERE family = 'tag' AND unlisted < 1 AND key IN (SELECT pair.key FROM json_each(NEW.tags) AS pair WHERE NOT (length(pair.value) <= 128)); UPDATE known_keys SET unlisted = 2 WHERE family = 'tag' AND unlisted < 2 AND key IN (SELECT pair.key FROM json_each(NEW.tags) AS pair WHERE NOT (instr(NEW.tags, '\u0000') = 0)); END;
COMMIT;
