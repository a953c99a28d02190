//! Analytics: rules, alarms and their actions.
