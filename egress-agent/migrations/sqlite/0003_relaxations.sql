-- Which points of the fence were open for the sandbox, as a JSON list of texts;
-- null where none was.
ALTER TABLE records ADD COLUMN relaxations TEXT;
