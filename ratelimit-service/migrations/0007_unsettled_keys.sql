-- Which of the tenant's keys a call showed whose reservation expired: limits of keys count it.
ALTER TABLE unsettled_events ADD COLUMN key TEXT;
