CREATE INDEX exposures_by_region ON exposures (region, interval_number);
