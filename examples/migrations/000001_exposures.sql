CREATE TABLE exposures (
    exposure_key bytea PRIMARY KEY CHECK (octet_length(exposure_key) = 16),
    transmission_risk smallint NOT NULL,
    interval_number integer NOT NULL,
    interval_count integer NOT NULL,
    region text NOT NULL
);
