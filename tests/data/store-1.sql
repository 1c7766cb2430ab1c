BEGIN TRANSACTION;
CREATE TABLE experiments (
	id INTEGER NOT NULL, 
	name TEXT NOT NULL, 
	PRIMARY KEY (id), 
	UNIQUE (name)
);
INSERT INTO "experiments" VALUES(1,'default');
CREATE TABLE known_keys (
	family TEXT NOT NULL, 
	"key" TEXT NOT NULL, 
	PRIMARY KEY (family, "key")
)
 WITHOUT ROWID

;
INSERT INTO "known_keys" VALUES('metadata','app_version');
INSERT INTO "known_keys" VALUES('metadata','environment');
INSERT INTO "known_keys" VALUES('metadata','mlflow.source.type');
INSERT INTO "known_keys" VALUES('metadata','mlflow.trace.session');
INSERT INTO "known_keys" VALUES('metadata','mlflow.traceInputs');
INSERT INTO "known_keys" VALUES('metadata','note');
INSERT INTO "known_keys" VALUES('metadata','nul');
INSERT INTO "known_keys" VALUES('metadata','region');
INSERT INTO "known_keys" VALUES('metadata','tenant');
INSERT INTO "known_keys" VALUES('span','http.route');
INSERT INTO "known_keys" VALUES('tag','mlflow.traceName');
INSERT INTO "known_keys" VALUES('tag','team');
CREATE TABLE schema_version (
	version INTEGER NOT NULL
);
INSERT INTO "schema_version" VALUES(1);
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
COMMIT;
